//! The stream `JOB_REJECTED`: stores dead letters, and finds the dead letter of a request.

use std::time::Duration;

use async_nats::{
    HeaderMap,
    jetstream::{self, consumer::DeliverPolicy, message::PublishMessage},
};
use bytes::Bytes;
use dispatcher_core::contract::{headers::NATS_MSG_ID, names::TemplateName};
use time::OffsetDateTime;

use crate::{
    nats::{
        definitions::JOB_REJECTED,
        scan::{DEADLINE, StreamReader},
    },
    retry::with_deadline,
};

/// The largest assumed difference between the clocks of two NATS servers.
const MAX_CLOCK_SKEW: Duration = Duration::from_mins(10);

/// Access to `JOB_REJECTED`.
#[derive(Clone)]
pub(crate) struct DeadLettersStream {
    context: jetstream::Context,
    reader: StreamReader,
}

/// A request's place in `JOBS` and the time it was stored there: they identify its dead letter.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StoredAt {
    /// The sequence in `JOBS`.
    pub sequence: u64,
    /// The time.
    pub time: OffsetDateTime,
}

impl StoredAt {
    fn message_id(&self) -> String {
        format!("{}-{}", self.sequence, self.time.unix_timestamp_nanos())
    }
}

impl DeadLettersStream {
    /// Opens the stream. Sends nothing to the server.
    ///
    /// # Errors
    /// If the stream's name is invalid.
    pub(crate) async fn open(context: jetstream::Context) -> Result<Self, String> {
        let reader = StreamReader::open(&context, JOB_REJECTED).await?;
        Ok(Self { context, reader })
    }

    /// Stores the dead letter of a request, once.
    ///
    /// # Errors
    /// If the dead letter may not be stored.
    pub(crate) async fn store(
        &self,
        template: &TemplateName,
        request: StoredAt,
        headers: HeaderMap,
        payload: Bytes,
    ) -> Result<(), String> {
        let message = PublishMessage::build()
            .payload(payload)
            .headers(headers)
            .message_id(request.message_id())
            .expected_stream(JOB_REJECTED);
        let stored = async {
            let sent = self.context.send_publish(template.rejected_subject(), message).await;
            sent.map_err(|e| e.to_string())?.await.map_err(|e| e.to_string())
        };
        let stored = with_deadline(2 * DEADLINE, stored).await.map_err(|e| e.to_string()).flatten();
        stored.map(drop).map_err(|e| format!("stream {JOB_REJECTED}: dead letter not stored: {e}"))
    }

    /// Whether the dead letter of a request is stored.
    ///
    /// # Errors
    /// If the stream does not answer.
    pub(crate) async fn contains(&self, template: &TemplateName, request: StoredAt) -> Result<bool, String> {
        let (id, mut found) = (request.message_id(), false);
        // A dead letter is younger than its request, by the clock of the same server.
        let from = DeliverPolicy::ByStartTime { start_time: request.time - MAX_CLOCK_SKEW };
        let each = |_: &str, headers: &HeaderMap, _| {
            found |= headers.get(NATS_MSG_ID).is_some_and(|value| value.as_str() == id);
        };
        self.reader.scan(template.rejected_subject(), from, each).await?;
        Ok(found)
    }
}
