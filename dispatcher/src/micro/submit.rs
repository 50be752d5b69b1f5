//! `jobs.<template>.submit`: a request with an answer: stored, or with `Job-Wait` the event that is waited for.

use std::time::Duration;

use async_nats::{
    Client, HeaderMap, RequestErrorKind,
    jetstream::{self, publish::PublishAck, response::Response},
};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::micro::{
    error::{ErrorCode, ServiceError},
    history::{History, Query},
    original::{Original, original},
    query::{self, Wait},
    waiting::{Place, WaitResult, Waiting},
};
use crate::retry::backoff;
use crate::{
    nats::{
        definitions::JOBS,
        headers::{put_trace, trace_of},
    },
    status::store::Store,
};
use dispatcher_core::{
    contract::{
        headers::NATS_MSG_ID,
        rejection::{Reason, Rejection},
        trace::{Trace, TraceContext},
    },
    request::{Identity, Request, job},
    template::Template,
};

/// How long one try to store a request may take, and all of them.
const TRY: Duration = Duration::from_secs(3);
const STORE: Duration = Duration::from_secs(10);
/// How often one who waits looks at the streams by itself: a notice is heard by whoever listens at that moment only.
const LOOK: Duration = Duration::from_secs(30);

/// See the module.
pub struct Submit {
    /// Where requests are published.
    pub client: Client,
    /// What was said.
    pub(crate) store: Store,
    /// What is stored.
    pub history: History,
    /// Who waits.
    pub waiting: Waiting,
    /// The longest wait.
    pub longest: Duration,
    /// Changes when NATS is connected again.
    pub reconnects: watch::Receiver<u64>,
    /// The service is stopping.
    pub stop: CancellationToken,
}

/// A request that is stored.
struct Stored {
    asked: Query,
    sequence: u64,
    /// It may have been there before.
    again: bool,
    rejected: Option<Rejection>,
}

impl Submit {
    /// Checks and stores a request; answers then, or waits for the event.
    ///
    /// # Errors
    /// A [`ServiceError`].
    pub async fn submit(
        &self,
        template: &Template,
        headers: Option<&HeaderMap>,
        payload: Bytes,
    ) -> Result<Bytes, ServiceError> {
        let query = query::submit(headers, self.longest)?;
        let identity = Identity { id: query.id.clone(), client_supplied: true, sequence: 0 };
        let refused = |rejection: Rejection| ServiceError::from(rejection).of_request(&query.id);
        let request = Request::parse(template, identity, &payload).map_err(refused)?;
        job::build(&request, template, &TraceContext::default()).map_err(refused)?;
        let Request { template, name, hash, .. } = request;
        let asked = Query { template, name, id: query.id, hash };
        // Before the publish, so that nothing is missed.
        let place = match query.wait {
            None => None,
            Some((wait, patience)) => Some((self.place(&asked, wait)?, wait, patience)),
        };
        let stored = self.store(asked, (payload, trace_of(headers)), query.given).await?;
        match place {
            None => Ok(accepted(&stored)),
            Some((place, wait, patience)) => self.wait(place, &stored, wait, patience).await,
        }
    }

    fn place(&self, asked: &Query, wait: Wait) -> Result<Place, ServiceError> {
        self.waiting.place(&asked.template, &asked.id, wait).ok_or_else(|| {
            let message = "as many callers wait as the setting WAITING_CALLERS allows; ask again later, or without `Job-Wait`";
            ServiceError::new(ErrorCode::Overloaded, message).of(&asked.name).of_request(&asked.id)
        })
    }

    /// Publishes until the stream has said what it makes of it. A repeated publish is safe: the identity is the same.
    async fn store(
        &self,
        asked: Query,
        request: (Bytes, Option<Trace>),
        given: bool,
    ) -> Result<Stored, ServiceError> {
        let refused = |refusal: ServiceError| refusal.of(&asked.name).of_request(&asked.id);
        let ack = self.publish(&asked, request).await.map_err(refused)?;
        let mut rejected = None;
        if ack.duplicate && given {
            let looked = original(&self.store, &self.history, &asked, ack.sequence).await;
            match looked.map_err(|error| refused(ServiceError::not_ready(error)))? {
                Original::Same => {}
                Original::Rejected(rejection) => rejected = Some(rejection),
                Original::Other => return Err(refused(reused(&asked))),
            }
        }
        Ok(Stored { asked, sequence: ack.sequence, again: given, rejected })
    }

    async fn publish(
        &self,
        asked: &Query,
        (payload, trace): (Bytes, Option<Trace>),
    ) -> Result<PublishAck, ServiceError> {
        let mut headers = HeaderMap::new();
        headers.insert(NATS_MSG_ID, asked.id.as_ref());
        put_trace(&mut headers, trace.as_ref());
        let end = Instant::now() + STORE;
        let mut trouble = ServiceError::not_ready("");
        for delay in backoff() {
            let request = async_nats::Request::new()
                .headers(headers.clone())
                .payload(payload.clone())
                .timeout(Some(TRY));
            match self.client.send_request(asked.template.create_subject(), request).await {
                Ok(answer) => match serde_json::from_slice(&answer.payload) {
                    Ok(Response::Ok(ack)) => return Ok(ack),
                    Ok(Response::Err { error }) => match refused_by_stream(&error) {
                        refusal if refusal.word == ErrorCode::NotReady => trouble = refusal,
                        refusal => return Err(refusal),
                    },
                    Err(error) => {
                        trouble = ServiceError::not_ready(format!("stream {JOBS}: no PubAck: {error}"))
                    }
                },
                Err(error) if error.kind() == RequestErrorKind::NoResponders => {
                    trouble = ServiceError::not_ready(format!(
                        "stream {JOBS}: nobody takes requests of {}",
                        asked.template
                    ));
                }
                Err(error) if error.kind() == RequestErrorKind::TimedOut => {
                    let message = format!(
                        "stream {JOBS}: no answer; the request may be stored. Ask again under the same `{NATS_MSG_ID}`"
                    );
                    trouble = ServiceError::new(ErrorCode::TimedOut, message);
                }
                Err(error) => trouble = ServiceError::not_ready(format!("stream {JOBS}: {error}")),
            }
            if Instant::now() + delay >= end {
                break;
            }
            tokio::select! {
                () = sleep(delay) => {}
                () = self.stop.cancelled() => break,
            }
        }
        Err(trouble)
    }

    /// Waits for what was asked for: told by whoever hears it first, and looked for where something may have been missed.
    async fn wait(
        &self,
        mut place: Place,
        stored: &Stored,
        wait: Wait,
        patience: Duration,
    ) -> Result<Bytes, ServiceError> {
        let Stored { asked, sequence, again, rejected } = stored;
        let of = |refusal: ServiceError| refusal.of(&asked.name).of_request(&asked.id).stored_at(*sequence);
        if let Some(rejection) = rejected {
            return Err(of(ServiceError::from(rejection.clone())));
        }
        let (begin, end) = (Instant::now(), Instant::now() + patience);
        let mut reconnects = self.reconnects.clone();
        reconnects.mark_unchanged();
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        if !again {
            // A new identity: nothing can be there yet.
            looks.reset();
        }
        loop {
            tokio::select! {
                heard = place.next() => match heard {
                    Some(WaitResult::Event { hash, payload }) => {
                        if asked.is_of(hash.as_deref()) {
                            return Ok(payload);
                        }
                    }
                    Some(WaitResult::Rejected(notice)) if notice.request_seq == *sequence => {
                        return Err(of(Rejection::new(notice.reason, notice.message).into()));
                    }
                    Some(WaitResult::Rejected(_)) => {}
                    None => return Err(of(ServiceError::not_ready("nobody listens to the status subjects"))),
                },
                () = looked_again(&mut looks, &mut reconnects) => {
                    // The subscription first: what it does not hear is stored by then.
                    let looked = timeout_at(end, self.look(stored, wait, begin.elapsed())).await;
                    match looked {
                        Ok(Ok(Some(answer))) => return answer.map_err(of),
                        Ok(Ok(None)) | Err(_) => {}
                        Ok(Err(error)) => tracing::debug!(error, "one who waits cannot look"),
                    }
                }
                () = tokio::time::sleep_until(end) => return Err(of(timed_out(asked, wait, patience))),
                () = self.stop.cancelled() => {
                    let message = format!("this dispatcher is stopping; the request is stored. Ask again under the same `{NATS_MSG_ID}`");
                    return Err(of(ServiceError::not_ready(message)));
                }
            }
        }
    }

    async fn look(
        &self,
        stored: &Stored,
        wait: Wait,
        waited: Duration,
    ) -> Result<Option<Result<Bytes, ServiceError>>, String> {
        self.client.flush().await.map_err(|e| e.to_string())?;
        let Stored { asked, sequence, .. } = stored;
        if let Some(event) = self.history.event(asked, wait).await? {
            return Ok(Some(Ok(event)));
        }
        // Two clocks: this one and the server's.
        let age = waited + Duration::from_secs(600);
        let rejection = self.history.rejection(&asked.template, *sequence, age).await?;
        Ok(rejection.map(|(rejection, _)| Err(rejection.into())))
    }
}

/// Until the next look is due.
async fn looked_again(looks: &mut tokio::time::Interval, reconnects: &mut watch::Receiver<u64>) {
    tokio::select! {
        _ = looks.tick() => {}
        Ok(()) = reconnects.changed() => {}
    }
}

fn accepted(stored: &Stored) -> Bytes {
    let Stored { asked: Query { template, name, id, .. }, sequence, .. } = stored;
    let answer: Value = json!({
        "name": name, "requestId": id, "requestSeq": sequence, "template": template,
        "statusSubject": template.status_subject(name),
    });
    answer.to_string().into()
}

fn reused(asked: &Query) -> ServiceError {
    let message = format!(
        "the request id {} was used just now, for another request: give each request its own `{NATS_MSG_ID}`",
        asked.id
    );
    Rejection::new(Reason::RequestIdReused, message).into()
}

fn timed_out(asked: &Query, wait: Wait, patience: Duration) -> ServiceError {
    let message = format!(
        "no answer to `Job-Wait: {}` within {} s; the request goes on, and is told of on {}",
        wait.as_str(),
        patience.as_secs(),
        asked.template.status_subject(&asked.name)
    );
    ServiceError::new(ErrorCode::TimedOut, message)
}

/// What the stream's own refusal means.
fn refused_by_stream(error: &jetstream::Error) -> ServiceError {
    let text = error.to_string();
    match error.error_code() {
        jetstream::ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM => {
            ServiceError::new(ErrorCode::TooLarge, format!("stream {JOBS}: {text}"))
        }
        jetstream::ErrorCode::STREAM_STORE_FAILED if text.contains("maximum") => {
            let message =
                format!("the queue takes no more requests of this template; ask again later: {text}");
            ServiceError::new(ErrorCode::QueueFull, message)
        }
        _ => ServiceError::not_ready(format!("stream {JOBS}: {text}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: u64, description: &str) -> ServiceError {
        let error = json!({"code": 400, "err_code": code, "description": description});
        refused_by_stream(&serde_json::from_value(error).unwrap())
    }

    #[test]
    fn a_refusal_of_the_stream_is_told_by_its_code() {
        for (code, description, word) in [
            (10054, "message size exceeds maximum allowed", ErrorCode::TooLarge),
            (10077, "maximum messages per subject exceeded", ErrorCode::QueueFull),
            (10077, "maximum bytes exceeded", ErrorCode::QueueFull),
            (10077, "no space left on device", ErrorCode::NotReady),
            (10008, "JetStream system temporarily unavailable", ErrorCode::NotReady),
        ] {
            assert_eq!(refused(code, description).word, word, "{description}");
        }
    }
}
