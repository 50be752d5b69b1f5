//! `jobs.<template>.submit`: stores a request, and with `Job-Wait` waits for its event.

use std::{sync::Arc, time::Duration};

use async_nats::{
    Client, HeaderMap, RequestErrorKind,
    jetstream::{self, publish::PublishAck, response::Response},
};
use bytes::Bytes;
use dispatcher_core::{
    contract::{
        headers::NATS_MSG_ID,
        nats_names::NatsNames,
        rejection::{Reason, Rejection},
        submitter::{SignedRequest, Submitter, Submitters},
        trace::TraceContext,
    },
    request::{Identity, Request, job},
    template::Template,
};
use serde_json::json;
use tokio::{
    sync::watch,
    time::{Instant, Interval, MissedTickBehavior, interval, sleep, sleep_until, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::{
    micro::{
        api::{self, SubmitOptions, Wait},
        error::{ErrorCode, ServiceError},
        history::{History, Original, Query},
        lookup::Lookups,
        waiters::{WaitResult, Waiter, Waiters},
    },
    nats::{
        connection::Connection,
        headers::{put_trace, trace_of},
        status_stream::StatusStream,
    },
    retry::backoff,
};

/// The deadline of one try to store a request, and the deadline of all tries.
const TRY_DEADLINE: Duration = Duration::from_secs(3);
const STORE_DEADLINE: Duration = Duration::from_secs(10);
/// How often a waiting call reads the streams: core NATS can lose the event.
const READ_INTERVAL: Duration = Duration::from_secs(30);
/// The tolerated difference between this machine's clock and the NATS server's.
const CLOCK_SKEW: Duration = Duration::from_secs(600);

/// Handles `submit` calls.
pub(crate) struct SubmitHandler {
    client: Client,
    store: StatusStream,
    history: History,
    lookups: Lookups,
    submitters: Arc<Submitters>,
    pub(super) waiters: Waiters,
    max_wait: Duration,
    /// Receives the events that callers wait for.
    events: Connection,
    /// Cancelled when the dispatcher stops.
    stop: CancellationToken,
}

/// A stored request.
struct Stored {
    query: Query,
    sequence: u64,
    /// Whether the request may have been stored before this call.
    redelivered: bool,
    rejected: Option<Rejection>,
}

impl SubmitHandler {
    /// `max_wait` bounds the wait of one caller, and `waiters` the number of waiting callers.
    pub(crate) fn new(
        (client, store, history): (Client, StatusStream, History),
        (lookups, submitters): (Lookups, Arc<Submitters>),
        (max_wait, waiters): (Duration, Waiters),
        events: Connection,
        stop: CancellationToken,
    ) -> Self {
        Self { client, store, history, lookups, submitters, waiters, max_wait, events, stop }
    }

    /// Validates and stores a request; then answers, or waits for the event.
    ///
    /// # Errors
    /// The request is invalid or cannot be stored, or the wait ended without the event.
    pub(super) async fn submit(
        &self,
        template: &Template,
        headers: &HeaderMap,
        payload: Bytes,
        submitter: Option<Submitter>,
    ) -> Result<Bytes, ServiceError> {
        let SubmitOptions { id, client_supplied, wait } = api::parse_submit(headers, self.max_wait)?;
        let identity = Identity { id: id.clone(), client_supplied: true, sequence: 0 };
        let rejected = |rejection: Rejection| ServiceError::from(rejection).with_request(&id);
        let request = Request::parse(template, identity, &payload).map_err(rejected)?;
        job::build(&request, template, &TraceContext::default()).map_err(rejected)?;
        let Request { template, name, hash, .. } = request;
        let query = Query { template, name, id, hash };
        let headers = self.stored_headers(&query, headers, submitter.as_ref());
        // Registered before the publish, so that the caller misses no event.
        let waiter = match wait {
            None => None,
            Some((wait, timeout)) => Some((self.register(&query, wait)?, wait, timeout)),
        };
        let stored = self.store(query, (payload, headers), client_supplied).await?;
        if let Some(Submitter { account, user }) = &submitter {
            let Query { template, name, id, .. } = &stored.query;
            let sequence = stored.sequence;
            tracing::info!(%template, job = %name, request_id = %id, sequence, account, user, "submitted");
        }
        match waiter {
            None => Ok(accepted(self.events.names(), &stored)),
            Some((waiter, wait, timeout)) => self.wait(waiter, &stored, wait, timeout).await,
        }
    }

    /// The headers of the stored request.
    fn stored_headers(&self, query: &Query, headers: &HeaderMap, submitter: Option<&Submitter>) -> HeaderMap {
        let mut stored = HeaderMap::new();
        stored.insert(NATS_MSG_ID, query.id.as_ref());
        put_trace(&mut stored, trace_of(Some(headers)).as_ref());
        if let Some(submitter) = submitter {
            let request = SignedRequest { template: &query.template, id: &query.id, hash: &query.hash };
            for (name, value) in self.submitters.headers(&request, submitter) {
                stored.insert(name, value);
            }
        }
        stored
    }

    fn register(&self, query: &Query, wait: Wait) -> Result<Waiter, ServiceError> {
        self.waiters.register(&query.template, &query.id, wait).ok_or_else(|| {
            let message = "the maximum number of callers is waiting, or too many of this template \
                           (DISPATCHER_MAX_WAITERS); retry later, or without `Job-Wait`";
            ServiceError::new(ErrorCode::Overloaded, message).with_job(&query.name).with_request(&query.id)
        })
    }

    /// Publishes the request, and checks that a duplicate is the same request.
    async fn store(
        &self,
        query: Query,
        request: (Bytes, HeaderMap),
        client_supplied: bool,
    ) -> Result<Stored, ServiceError> {
        let with_query = |error: ServiceError| error.with_job(&query.name).with_request(&query.id);
        let ack = self.publish(&query, request).await.map_err(with_query)?;
        let mut rejected = None;
        if ack.duplicate && client_supplied {
            let _place = self.lookups.place(&query.template).await.map_err(with_query)?;
            let original = self.history.original(&self.store, &query, ack.sequence).await;
            match original.map_err(|error| with_query(ServiceError::not_ready(error)))? {
                Original::Same => {}
                Original::Rejected(rejection) => rejected = Some(rejection),
                Original::Other => return Err(with_query(id_reused(&query))),
            }
        }
        Ok(Stored { query, sequence: ack.sequence, redelivered: client_supplied, rejected })
    }

    /// Publishes until the stream acknowledges or refuses the request. The request id makes a
    /// repeated publish safe.
    async fn publish(
        &self,
        query: &Query,
        (payload, headers): (Bytes, HeaderMap),
    ) -> Result<PublishAck, ServiceError> {
        let end = Instant::now() + STORE_DEADLINE;
        let mut last_error = ServiceError::not_ready("");
        for delay in backoff() {
            match self.try_publish(query, headers.clone(), payload.clone()).await {
                Ok(ack) => return Ok(ack),
                Err(error) if matches!(error.code, ErrorCode::NotReady | ErrorCode::TimedOut) => {
                    last_error = error;
                }
                Err(error) => return Err(error),
            }
            if Instant::now() + delay >= end {
                break;
            }
            if self.stop.run_until_cancelled(sleep(delay)).await.is_none() {
                break;
            }
        }
        Err(last_error)
    }

    async fn try_publish(
        &self,
        query: &Query,
        headers: HeaderMap,
        payload: Bytes,
    ) -> Result<PublishAck, ServiceError> {
        let request =
            async_nats::Request::new().headers(headers).payload(payload).timeout(Some(TRY_DEADLINE));
        let names = self.events.names();
        let stream = names.jobs();
        match self.client.send_request(names.create_subject(&query.template), request).await {
            Ok(answer) => match serde_json::from_slice(&answer.payload) {
                Ok(Response::Ok(ack)) => Ok(ack),
                Ok(Response::Err { error }) => Err(publish_error(stream, &error)),
                Err(error) => {
                    Err(ServiceError::not_ready(format!("stream {stream}: invalid PubAck: {error}")))
                }
            },
            Err(error) if error.kind() == RequestErrorKind::NoResponders => {
                let message =
                    format!("stream {stream}: no stream captures the subject of {}", query.template);
                Err(ServiceError::not_ready(message))
            }
            Err(error) if error.kind() == RequestErrorKind::TimedOut => {
                let message = format!(
                    "stream {stream}: no answer; the request may be stored. Retry with the same `{NATS_MSG_ID}`"
                );
                Err(ServiceError::new(ErrorCode::TimedOut, message))
            }
            Err(error) => Err(ServiceError::not_ready(format!("stream {stream}: {error}"))),
        }
    }

    /// Waits for the event or the rejection, from the subscription or from the streams.
    async fn wait(
        &self,
        mut waiter: Waiter,
        stored: &Stored,
        wait: Wait,
        timeout: Duration,
    ) -> Result<Bytes, ServiceError> {
        let Stored { query, sequence, redelivered, rejected } = stored;
        let with_stored = |error: ServiceError| {
            error.with_job(&query.name).with_request(&query.id).with_sequence(*sequence)
        };
        if let Some(rejection) = rejected {
            return Err(with_stored(ServiceError::from(rejection.clone())));
        }
        let (begin, end) = (Instant::now(), Instant::now() + timeout);
        let mut reconnects = self.events.changes();
        reconnects.mark_unchanged();
        let mut ticks = interval(READ_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        if !redelivered {
            // The streams hold nothing about a new request yet.
            ticks.reset();
        }
        loop {
            tokio::select! {
                result = waiter.next() => match result {
                    Some(WaitResult::Event { hash, payload }) => {
                        if query.matches_hash(hash.as_deref()) {
                            return Ok(payload);
                        }
                    }
                    Some(WaitResult::Rejected(notice)) if notice.request_seq == *sequence => {
                        return Err(with_stored(Rejection::new(notice.reason, notice.message).into()));
                    }
                    Some(WaitResult::Rejected(_)) => {}
                    None => return Err(with_stored(ServiceError::not_ready("the subscription ended"))),
                },
                () = next_read(&mut ticks, &mut reconnects) => {
                    match timeout_at(end, self.read_streams(stored, wait, begin.elapsed())).await {
                        Ok(Ok(Some(answer))) => return answer.map_err(with_stored),
                        Ok(Ok(None)) | Err(_) => {}
                        Ok(Err(error)) => tracing::debug!(error, "cannot read the streams for a caller"),
                    }
                }
                () = sleep_until(end) => {
                    let error = timed_out(self.events.names(), query, wait, timeout);
                    return Err(with_stored(error));
                }
                () = self.stop.cancelled() => {
                    let message = format!(
                        "the dispatcher is stopping; the request is stored. Retry with the same `{NATS_MSG_ID}`"
                    );
                    return Err(with_stored(ServiceError::not_ready(message)));
                }
            }
        }
    }

    /// Looks for the event or the rejection in the streams.
    async fn read_streams(
        &self,
        stored: &Stored,
        wait: Wait,
        waited: Duration,
    ) -> Result<Option<Result<Bytes, ServiceError>>, String> {
        // Once the server has the subscription, an event is either delivered or stored already.
        self.events.client().flush().await.map_err(|e| e.to_string())?;
        let Stored { query, sequence, .. } = stored;
        if let Some(event) = self.history.event(query, wait).await? {
            return Ok(Some(Ok(event)));
        }
        let rejection = self.history.rejection(query, *sequence, waited + CLOCK_SKEW).await?;
        Ok(rejection.map(|rejected| Err(rejected.rejection.into())))
    }
}

/// Waits until the streams should be read.
async fn next_read(ticks: &mut Interval, reconnects: &mut watch::Receiver<u64>) {
    tokio::select! {
        _ = ticks.tick() => {}
        Ok(()) = reconnects.changed() => {}
    }
}

fn accepted(names: &NatsNames, stored: &Stored) -> Bytes {
    let Stored { query: Query { template, name, id, .. }, sequence, .. } = stored;
    let answer = json!({
        "name": name, "requestId": id, "requestSeq": sequence, "template": template,
        "statusSubject": names.status_subject(template, name),
    });
    answer.to_string().into()
}

fn id_reused(query: &Query) -> ServiceError {
    let message = format!(
        "request id {} already belongs to another request; give each request its own `{NATS_MSG_ID}`",
        query.id
    );
    Rejection::new(Reason::RequestIdReused, message).into()
}

fn timed_out(names: &NatsNames, query: &Query, wait: Wait, timeout: Duration) -> ServiceError {
    let message = format!(
        "`Job-Wait: {}` was not met within {} s; the request is stored, and its events are on {}",
        wait.as_str(),
        timeout.as_secs(),
        names.status_subject(&query.template, &query.name)
    );
    ServiceError::new(ErrorCode::TimedOut, message)
}

/// Classifies an error answer of the stream.
fn publish_error(stream: &str, error: &jetstream::Error) -> ServiceError {
    let text = error.to_string();
    match error.error_code() {
        jetstream::ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM => {
            ServiceError::new(ErrorCode::TooLarge, format!("stream {stream}: {text}"))
        }
        jetstream::ErrorCode::STREAM_STORE_FAILED if text.contains("maximum") => {
            let message = format!("the queue of this template is full; retry later: {text}");
            ServiceError::new(ErrorCode::QueueFull, message)
        }
        _ => ServiceError::not_ready(format!("stream {stream}: {text}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_of(code: u64, description: &str) -> ServiceError {
        let error = json!({"code": 400, "err_code": code, "description": description});
        publish_error("JOBS", &serde_json::from_value(error).unwrap())
    }

    #[test]
    fn publish_errors_are_classified_by_jetstream_error_code() {
        for (jetstream_code, description, code) in [
            (10054, "message size exceeds maximum allowed", ErrorCode::TooLarge),
            (10077, "maximum messages per subject exceeded", ErrorCode::QueueFull),
            (10077, "maximum bytes exceeded", ErrorCode::QueueFull),
            (10077, "no space left on device", ErrorCode::NotReady),
            (10008, "JetStream system temporarily unavailable", ErrorCode::NotReady),
        ] {
            assert_eq!(error_of(jetstream_code, description).code, code, "{description}");
        }
    }
}
