//! Poison messages: requests whose headers the client library cannot decode.
//!
//! If the server delivers one, async-nats drops the connection or ends its connection task. So this
//! module reads the requests directly from the stream and turns poison messages into dead letters.
//! After each reconnect, it checks the delivered but unacknowledged requests of each consumer. At
//! start, it also looks ahead at requests that are not yet delivered.

use async_nats::jetstream::{consumer::PullConsumer, stream::RawMessage};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use dispatcher_core::{
    contract::{
        names::TemplateName,
        rejection::{Reason, Rejection},
    },
    request::{Envelope, Identity, poison::check_headers},
};
use tokio::sync::watch;

use crate::{
    intake::dead_letters::{DeadLetter, DeadLetters},
    nats::{jobs_stream::JobsStream, scan::call},
};

/// How many stream sequences after the last delivered request the check at start covers. It must
/// be at least the maximum size of a pull.
const LOOKAHEAD: u64 = 1024;
/// The maximum number of requests that one check of one consumer reads.
const MAX_CHECKED: usize = 10_000;

/// Finds and rejects poison messages.
#[derive(Clone)]
pub(crate) struct PoisonHandler {
    /// The stream of requests.
    pub jobs: JobsStream,
    /// The consumer of each template.
    pub consumers: Vec<(TemplateName, PullConsumer)>,
    /// Keeps the rejected requests.
    pub dead_letters: DeadLetters,
}

impl PoisonHandler {
    /// Checks the requests that the first pulls will deliver.
    pub(crate) async fn before_pulling(&self) {
        self.check_all(LOOKAHEAD).await;
    }

    /// Checks the delivered requests after each reconnect; the caller drops the future to stop.
    pub(crate) async fn run(self, mut reconnects: watch::Receiver<u64>) {
        while reconnects.changed().await.is_ok() {
            self.check_all(0).await;
        }
    }

    async fn check_all(&self, lookahead: u64) {
        for (template, consumer) in &self.consumers {
            if let Err(error) = self.check(template, consumer, lookahead).await {
                // Not a warning: the pull loop of the template reports the cause.
                tracing::debug!(%template, error, "search for poison messages failed");
            }
        }
    }

    async fn check(
        &self,
        template: &TemplateName,
        consumer: &PullConsumer,
        lookahead: u64,
    ) -> Result<(), String> {
        let info = call("consumer info", consumer.get_info()).await?;
        if info.num_ack_pending == 0 && (lookahead == 0 || info.num_pending == 0) {
            return Ok(());
        }
        let last = info.delivered.stream_sequence.saturating_add(lookahead);
        let mut next = info.ack_floor.stream_sequence.saturating_add(1);
        for _ in 0..MAX_CHECKED {
            let found = self.jobs.first_request(template, next).await?;
            let Some(message) = found.filter(|message| message.sequence <= last) else { break };
            next = message.sequence.saturating_add(1);
            self.reject_if_poison(template, message).await?;
        }
        Ok(())
    }

    async fn reject_if_poison(&self, template: &TemplateName, message: RawMessage) -> Result<(), String> {
        let headers = decode(message.headers.as_deref().unwrap_or_default())?;
        let Err(problem) = check_headers(&headers) else { return Ok(()) };
        let payload = Bytes::from(decode(&message.payload)?);
        let envelope = Envelope {
            payload: &payload,
            // The headers are unreliable.
            message_id: None,
            stream: &self.jobs.incarnation(),
            sequence: message.sequence,
            stored_nanos: message.time.unix_timestamp_nanos(),
        };
        let (Ok(identity) | Err((identity, _))) = Identity::of(&envelope);
        let rejection = Rejection::new(Reason::InvalidHeaders, problem);
        tracing::info!(
            %template,
            request_seq = message.sequence,
            message = rejection.message,
            "poison message rejected"
        );
        let dead_letter = DeadLetter {
            template,
            identity: &identity,
            stored: message.time,
            payload: payload.clone(),
            // The headers are unreliable.
            trace: None,
            submitter: None,
            rejection: &rejection,
        };
        self.dead_letters.reject(dead_letter).await?;
        self.jobs.remove(message.sequence).await
    }
}

fn decode(text: &str) -> Result<Vec<u8>, String> {
    STANDARD.decode(text).map_err(|e| format!("the stored message is not base64: {e}"))
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use async_nats::HeaderName;
    use dispatcher_core::request::poison::is_header_name;

    #[test]
    fn header_names_are_valid_exactly_if_the_client_library_decodes_them() {
        for c in (0..=0x17f).filter_map(char::from_u32) {
            let name = format!("a{c}b");
            assert_eq!(is_header_name(&name), HeaderName::from_str(&name).is_ok(), "{c:?}");
        }
        assert_eq!(is_header_name(""), HeaderName::from_str("").is_ok());
    }
}
