//! The stream `JOB_REJECTED`: stores dead letters, and finds the dead letter of a request.
//!
//! Each dead letter has its own subject. So both calls cost the same however many dead letters the
//! stream holds: a fenced publish, and one read of an exact subject through the leader.

use async_nats::{
    HeaderMap,
    jetstream::{
        self,
        context::{PublishError, PublishErrorKind},
        message::PublishMessage,
    },
};
use bytes::Bytes;
use dispatcher_core::contract::{
    dead_letter::{AfterRefusal, Existing, StoredAt, after_refusal},
    names::TemplateName,
    nats_names::NatsNames,
};

use crate::{
    nats::scan::{DEADLINE, StoredMessage, StreamReader},
    retry::with_deadline,
};

/// How often a dead letter is published if other messages of its subject come in between. No
/// other program has a reason to publish there, so the second publish succeeds.
const MAX_PUBLISHES: usize = 4;

/// Access to `JOB_REJECTED`.
#[derive(Clone)]
pub(crate) struct DeadLettersStream {
    context: jetstream::Context,
    names: NatsNames,
    reader: StreamReader,
}

impl DeadLettersStream {
    /// Opens the stream. Sends nothing to the server.
    ///
    /// # Errors
    /// If the stream's name is invalid.
    pub(crate) async fn open(context: jetstream::Context, names: NatsNames) -> Result<Self, String> {
        let reader = StreamReader::open(&context, names.job_rejected()).await?;
        Ok(Self { context, names, reader })
    }

    /// The names of the installation.
    pub(crate) fn names(&self) -> &NatsNames {
        &self.names
    }

    /// Stores the dead letter of a request, once. `headers` contain the request's time.
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
        let subject = self.names.dead_letter_subject(template, request.sequence);
        let stream = self.names.job_rejected();
        let failed = |e: &str| format!("stream {stream}: dead letter {subject} not stored: {e}");
        let mut expected = 0;
        for _ in 0..MAX_PUBLISHES {
            let message = PublishMessage::build()
                .payload(payload.clone())
                .headers(headers.clone())
                .expected_stream(stream)
                .expected_last_subject_sequence(expected);
            match self.publish(&subject, message).await {
                Ok(()) => return Ok(()),
                Err(Refusal::Fenced) => {}
                Err(Refusal::Failed(error)) => return Err(failed(&error)),
            }
            let last = self.reader.last_stored(&subject).await?;
            match after_refusal(last.as_ref().map(existing), request) {
                AfterRefusal::Stored => return Ok(()),
                AfterRefusal::PublishAfter(sequence) => expected = sequence,
            }
        }
        Err(failed("another program publishes on this subject"))
    }

    async fn publish(&self, subject: &str, message: PublishMessage) -> Result<(), Refusal> {
        let stored = async {
            let sent = self.context.send_publish(subject.to_owned(), message).await?;
            sent.await.map(drop)
        };
        match with_deadline(2 * DEADLINE, stored).await {
            Ok(stored) => stored.map_err(Refusal::from),
            Err(error) => Err(Refusal::Failed(error.to_string())),
        }
    }

    /// Whether the dead letter of a request is stored.
    ///
    /// # Errors
    /// If the stream does not answer.
    pub(crate) async fn contains(&self, template: &TemplateName, request: StoredAt) -> Result<bool, String> {
        let subject = self.names.dead_letter_subject(template, request.sequence);
        let last = self.reader.last_stored(&subject).await?;
        Ok(last.as_ref().map(existing).is_some_and(|last| last.belongs_to(request)))
    }
}

/// Why a publish stored nothing, or maybe nothing.
enum Refusal {
    /// The subject's last sequence is not the expected one.
    Fenced,
    Failed(String),
}

impl From<PublishError> for Refusal {
    fn from(error: PublishError) -> Self {
        match error.kind() {
            PublishErrorKind::WrongLastSequence => Self::Fenced,
            _ => Self::Failed(error.to_string()),
        }
    }
}

fn existing(message: &StoredMessage) -> Existing<'_> {
    Existing { sequence: message.sequence, headers: &message.headers }
}
