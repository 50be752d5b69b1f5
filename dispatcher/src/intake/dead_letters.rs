//! Rejects requests: stores a dead letter, then publishes a notice.

use async_nats::{HeaderMap, jetstream};
use bytes::Bytes;
use dispatcher_core::{
    contract::{
        dead_letter::{KeptPayload, StoredAt},
        headers::{
            JOB_ERROR, JOB_ERROR_MESSAGE, JOB_NAME, JOB_PAYLOAD_SHA256, JOB_PAYLOAD_SIZE, JOB_REQUEST_HASH,
            JOB_REQUEST_ID, JOB_REQUEST_SEQ, JOB_REQUEST_TIME, JOB_SUBMITTER, safe_value,
        },
        names::TemplateName,
        nats_names::NatsNames,
        rejection::{RejectedNotice, RejectedType, Rejection},
        submitter::Submitter,
        trace::Trace,
    },
    request::{Identity, Request},
};
use time::OffsetDateTime;

use crate::{
    clock::now,
    nats::{dead_letters_stream::DeadLettersStream, headers::put_trace},
    telemetry::metrics::Metrics,
};

/// Rejects requests.
#[derive(Clone)]
pub(crate) struct DeadLetters {
    context: jetstream::Context,
    stream: DeadLettersStream,
    metrics: Metrics,
}

/// A rejected request.
#[derive(Debug)]
pub(crate) struct DeadLetter<'a> {
    /// The template.
    pub template: &'a TemplateName,
    /// The id and sequence.
    pub identity: &'a Identity,
    /// When `JOBS` stored the request.
    pub stored: OffsetDateTime,
    /// The payload. The dead letter contains at most its first 8 KiB.
    pub payload: Bytes,
    /// The trace, if the request has one.
    pub trace: Option<&'a Trace>,
    /// Who submitted the request, if it is known.
    pub submitter: Option<&'a Submitter>,
    /// The reason.
    pub rejection: &'a Rejection,
}

impl DeadLetters {
    /// Opens the stream. Sends nothing to the server.
    ///
    /// # Errors
    /// If the stream's name is invalid.
    pub(crate) async fn open(
        context: jetstream::Context,
        names: NatsNames,
        metrics: Metrics,
    ) -> Result<Self, String> {
        let stream = DeadLettersStream::open(context.clone(), names).await?;
        Ok(Self { context, stream, metrics })
    }

    /// Stores the dead letter and publishes the notice. Remove the request only after that.
    ///
    /// # Errors
    /// If the dead letter may not be stored. The request must be delivered again.
    pub(crate) async fn reject(&self, dead_letter: DeadLetter<'_>) -> Result<(), String> {
        let request = stored_at(dead_letter.identity.sequence, dead_letter.stored);
        let payload = KeptPayload::of(&dead_letter.payload);
        let headers = headers(&dead_letter, request, &payload);
        let kept = dead_letter.payload.slice(..payload.kept);
        self.stream.store(dead_letter.template, request, headers, kept).await?;
        self.metrics.rejected(dead_letter.template, dead_letter.rejection.reason);
        self.notify(&dead_letter).await;
        Ok(())
    }

    /// Whether a request has its dead letter. A rejection is final, so the intake asks before it
    /// handles a redelivery.
    ///
    /// # Errors
    /// If the stream does not answer.
    pub(crate) async fn contains(
        &self,
        template: &TemplateName,
        sequence: u64,
        stored: OffsetDateTime,
    ) -> Result<bool, String> {
        self.stream.contains(template, stored_at(sequence, stored)).await
    }

    /// Publishes the notice. No stream stores it, and the dead letter replaces a lost one.
    async fn notify(&self, dead_letter: &DeadLetter<'_>) {
        let notice = RejectedNotice {
            event: RejectedType::Rejected,
            template: dead_letter.template.clone(),
            name: dead_letter.rejection.name.clone(),
            request_id: dead_letter.identity.id.to_string(),
            request_seq: dead_letter.identity.sequence,
            time: now(),
            reason: dead_letter.rejection.reason,
            message: dead_letter.rejection.message.clone(),
        };
        let payload = serde_json::to_vec(&notice).unwrap_or_default();
        let mut headers = HeaderMap::new();
        put_trace(&mut headers, dead_letter.trace);
        let subject = self.stream.names().rejected_notice_subject(dead_letter.template);
        let client = self.context.client();
        if let Err(error) = client.publish_with_headers(subject, headers, payload.into()).await {
            tracing::debug!(%error, "notice of a rejection not published");
        }
    }
}

fn stored_at(sequence: u64, stored: OffsetDateTime) -> StoredAt {
    StoredAt { sequence, nanos: stored.unix_timestamp_nanos() }
}

fn headers(dead_letter: &DeadLetter<'_>, request: StoredAt, payload: &KeptPayload) -> HeaderMap {
    let rejection = dead_letter.rejection;
    let mut map = HeaderMap::new();
    map.insert(JOB_ERROR, rejection.reason.as_str());
    map.insert(JOB_ERROR_MESSAGE, safe_value(&rejection.message));
    map.insert(JOB_REQUEST_ID, safe_value(dead_letter.identity.id.as_ref()));
    map.insert(JOB_REQUEST_SEQ, request.sequence.to_string());
    map.insert(JOB_REQUEST_TIME, request.nanos.to_string());
    map.insert(JOB_PAYLOAD_SIZE, payload.size.to_string());
    map.insert(JOB_PAYLOAD_SHA256, payload.sha256.as_str());
    if let Some(hash) = Request::hash_of(dead_letter.template, &dead_letter.payload) {
        map.insert(JOB_REQUEST_HASH, hash);
    }
    if let Some(name) = &rejection.name {
        map.insert(JOB_NAME, name.as_ref());
    }
    if let Some(submitter) = dead_letter.submitter {
        map.insert(JOB_SUBMITTER, submitter.to_text());
    }
    put_trace(&mut map, dead_letter.trace);
    map
}
