//! Dead letters: a copy of the request with the reason, then a notice for whoever watches.

use std::time::Duration;

use async_nats::{
    HeaderMap,
    jetstream::{self, consumer::DeliverPolicy, message::PublishMessage, stream::Stream},
};
use bytes::Bytes;
use time::OffsetDateTime;
use tokio::time::timeout;

use crate::clock::now;
use crate::{
    nats::{definitions::JOB_REJECTED, headers::put_trace, scan::scan},
    telemetry::metrics::Metrics,
};
use dispatcher_core::contract::{
    headers::{
        JOB_ERROR, JOB_ERROR_MESSAGE, JOB_NAME, JOB_REQUEST_ID, JOB_REQUEST_SEQ, NATS_MSG_ID, safe_value,
    },
    names::TemplateName,
    rejection::{RejectedNotice, RejectedType, Rejection},
    trace::Trace,
};
use dispatcher_core::request::Identity;

const DEADLINE: Duration = Duration::from_secs(5);
/// How far the clocks of NATS servers may be apart.
const CLOCKS: Duration = Duration::from_secs(600);

/// Access to `JOB_REJECTED`.
#[derive(Clone)]
pub struct DeadLetters {
    context: jetstream::Context,
    stream: Stream<()>,
    metrics: Metrics,
}

/// A request to be rejected.
#[derive(Debug)]
pub struct DeadLetter<'a> {
    /// Its template.
    pub template: &'a TemplateName,
    /// Who it is.
    pub identity: &'a Identity,
    /// When the stream stored it, in nanoseconds since 1970: with the sequence the identity of the copy.
    pub stored_nanos: i128,
    /// Its payload, copied unchanged.
    pub payload: Bytes,
    /// The trace that it belongs to.
    pub trace: Option<&'a Trace>,
    /// The reason.
    pub rejection: &'a Rejection,
}

impl DeadLetters {
    /// Opens the stream without asking for it: `provision` did.
    ///
    /// # Errors
    /// Where the stream's name is invalid, which it is not.
    pub async fn open(mut context: jetstream::Context, metrics: Metrics) -> Result<Self, String> {
        context.set_timeout(DEADLINE);
        let stream = context.get_stream_no_info(JOB_REJECTED).await.map_err(|e| e.to_string())?;
        Ok(Self { context, stream, metrics })
    }

    /// Stores the copy, then publishes the notice. Only then may the request be ended.
    ///
    /// # Errors
    /// Where it is not certain that the copy is stored: the request must be delivered again.
    pub async fn reject(&self, letter: DeadLetter<'_>) -> Result<(), String> {
        let message = PublishMessage::build()
            .payload(letter.payload.clone())
            .headers(letter_headers(&letter))
            .message_id(copy_id(letter.identity.sequence, letter.stored_nanos))
            .expected_stream(JOB_REJECTED);
        let stored = async {
            let sent = self.context.send_publish(letter.template.rejected_subject(), message).await;
            sent.map_err(|e| e.to_string())?.await.map_err(|e| e.to_string())
        };
        let stored = timeout(2 * DEADLINE, stored).await.map_err(|_| "no answer".to_owned()).flatten();
        stored.map_err(|e| {
            format!("stream {JOB_REJECTED}: the copy of a rejected request is not stored: {e}")
        })?;
        self.metrics.rejected(letter.template, letter.rejection.reason);
        self.notify(&letter).await;
        Ok(())
    }

    /// Whether the copy of a request is there already. Query of every request that is delivered again: what has been
    /// rejected stays so, whatever has changed since.
    ///
    /// # Errors
    /// Where the stream does not tell.
    pub async fn contain(
        &self,
        template: &TemplateName,
        sequence: u64,
        stored: OffsetDateTime,
    ) -> Result<bool, String> {
        let id = copy_id(sequence, stored.unix_timestamp_nanos());
        let mut found = false;
        // No copy is older than its request, but for the difference of two servers' clocks.
        let from = DeliverPolicy::ByStartTime { start_time: stored - CLOCKS };
        let each = |_: &str, headers: &HeaderMap, _| {
            found |= headers.get(NATS_MSG_ID).is_some_and(|value| value.as_str() == id);
        };
        scan(&self.stream, template.rejected_subject(), from, each)
            .await
            .map_err(|e| format!("stream {JOB_REJECTED}: {e}"))?;
        Ok(found)
    }

    /// The notice is a courtesy: it is stored nowhere, and its loss loses nothing.
    async fn notify(&self, letter: &DeadLetter<'_>) {
        let notice = RejectedNotice {
            event: RejectedType::Rejected,
            template: letter.template.clone(),
            name: letter.rejection.name.clone(),
            request_id: letter.identity.id.to_string(),
            request_seq: letter.identity.sequence,
            time: now(),
            reason: letter.rejection.reason,
            message: letter.rejection.message.clone(),
        };
        let payload = serde_json::to_vec(&notice).unwrap_or_default();
        let mut headers = HeaderMap::new();
        put_trace(&mut headers, letter.trace);
        let (client, subject) = (self.context.client(), letter.template.rejected_notice_subject());
        if let Err(error) = client.publish_with_headers(subject, headers, payload.into()).await {
            tracing::debug!(%error, "the notice of a rejection is not published");
        }
    }
}

/// The identity of a copy: the request's place in the stream, and when it was stored there.
fn copy_id(sequence: u64, stored_nanos: i128) -> String {
    format!("{sequence}-{stored_nanos}")
}

fn letter_headers(letter: &DeadLetter<'_>) -> HeaderMap {
    let rejection = letter.rejection;
    let mut map = HeaderMap::new();
    map.insert(JOB_ERROR, rejection.reason.as_str());
    map.insert(JOB_ERROR_MESSAGE, safe_value(&rejection.message));
    map.insert(JOB_REQUEST_ID, safe_value(letter.identity.id.as_ref()));
    map.insert(JOB_REQUEST_SEQ, letter.identity.sequence.to_string());
    if let Some(name) = &rejection.name {
        map.insert(JOB_NAME, name.as_ref());
    }
    put_trace(&mut map, letter.trace);
    map
}
