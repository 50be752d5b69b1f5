//! Requests whose headers the client library cannot read: taken out of the stream without being delivered, and kept as
//! dead letters like every other bad request.
//!
//! Their delivery ends the connection, or the client. So they are looked for where that shows: among the requests that were
//! delivered and not acknowledged, after a reconnect; at a start, also among those that come next.

use std::time::Duration;

use async_nats::jetstream::{
    self, ErrorCode, consumer::PullConsumer, response::Response, stream::RawMessage,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::{sync::watch, time::timeout};

use crate::intake::dead_letters::{DeadLetter, DeadLetters};
use crate::nats::{definitions::JOBS, incarnation::StreamIncarnation, requests};
use dispatcher_core::contract::{
    names::TemplateName,
    rejection::{Reason, Rejection},
};
use dispatcher_core::request::poison::check_headers;
use dispatcher_core::request::{Envelope, Identity};

const DEADLINE: Duration = Duration::from_secs(5);
/// Requests that are looked at beyond those that were delivered, at a start: whatever is pulled first.
const AHEAD: u64 = 1024;
/// Requests that are looked at in one round.
const MOST: usize = 10_000;

/// See the module.
#[derive(Clone)]
pub struct PoisonHandler {
    /// JetStream.
    pub context: jetstream::Context,
    /// Which `JOBS` it is.
    pub stream: StreamIncarnation,
    /// The consumers to look after.
    pub consumers: Vec<(TemplateName, PullConsumer)>,
    /// Keeps what is found.
    pub dead_letters: DeadLetters,
}

impl PoisonHandler {
    /// One round before the first pull: the next requests too are looked at.
    pub async fn before_pulling(&self) {
        self.round(AHEAD).await;
    }

    /// Looks after each reconnect. The caller drops it to stop.
    pub async fn run(self, mut reconnects: watch::Receiver<u64>) {
        while reconnects.changed().await.is_ok() {
            self.round(0).await;
        }
    }

    async fn round(&self, ahead: u64) {
        for (template, consumer) in &self.consumers {
            if let Err(error) = self.look(template, consumer, ahead).await {
                // The next round looks again; whatever is wrong is told by the rooms that pull.
                tracing::debug!(%template, error, "requests are not looked through");
            }
        }
    }

    async fn look(&self, template: &TemplateName, consumer: &PullConsumer, ahead: u64) -> Result<(), String> {
        let info = timeout(DEADLINE, consumer.get_info()).await.map_err(|_| late())?;
        let info = info.map_err(|e| e.to_string())?;
        if info.num_ack_pending == 0 && (ahead == 0 || info.num_pending == 0) {
            return Ok(());
        }
        let last = info.delivered.stream_sequence.saturating_add(ahead);
        let mut next = info.ack_floor.stream_sequence.saturating_add(1);
        for _ in 0..MOST {
            let Some(message) = requests::first(&self.context, template, next)
                .await?
                .filter(|message| message.sequence <= last)
            else {
                break;
            };
            next = message.sequence.saturating_add(1);
            self.judge(template, message).await?;
        }
        Ok(())
    }

    async fn judge(&self, template: &TemplateName, message: RawMessage) -> Result<(), String> {
        let headers = decode(message.headers.as_deref().unwrap_or_default())?;
        let Err(problem) = check_headers(&headers) else { return Ok(()) };
        let payload = Bytes::from(decode(&message.payload)?);
        let stored_nanos = message.time.unix_timestamp_nanos();
        let envelope = Envelope {
            payload: &payload,
            // Whatever stands there cannot be relied on.
            message_id: None,
            stream: &self.stream.name(),
            sequence: message.sequence,
            stored_nanos,
        };
        let (Ok(identity) | Err((identity, _))) = Identity::of(&envelope);
        let rejection = Rejection::new(Reason::InvalidHeaders, problem);
        tracing::info!(%template, request_seq = message.sequence, message = rejection.message, "request rejected");
        let letter = DeadLetter {
            template,
            identity: &identity,
            stored_nanos,
            payload: payload.clone(),
            // Whatever stands there cannot be relied on either.
            trace: None,
            rejection: &rejection,
        };
        self.dead_letters.reject(letter).await?;
        self.remove(message.sequence).await
    }

    async fn remove(&self, sequence: u64) -> Result<(), String> {
        let query = json!({"seq": sequence, "no_erase": true});
        let answer = self.context.request(format!("STREAM.MSG.DELETE.{JOBS}"), &query);
        match timeout(DEADLINE, answer).await.map_err(|_| late())?.map_err(|e| e.to_string())? {
            Response::Ok(Value::Object(_)) => Ok(()),
            Response::Ok(other) => Err(format!("found {other}, expected an object")),
            // DeletionCheck already: another replica was quicker.
            Response::Err { error } if error.error_code() == ErrorCode::NO_MESSAGE_FOUND => Ok(()),
            Response::Err { error } => Err(error.to_string()),
        }
    }
}

fn decode(text: &str) -> Result<Vec<u8>, String> {
    STANDARD.decode(text).map_err(|e| format!("a stored message is not base64: {e}"))
}

fn late() -> String {
    format!("no answer within {} s", DEADLINE.as_secs())
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use async_nats::HeaderName;
    use dispatcher_core::request::poison::is_header_name;

    #[test]
    fn the_rule_for_header_names_agrees_with_the_client_library() {
        for c in (0..=0x17f).filter_map(char::from_u32) {
            let name = format!("a{c}b");
            assert_eq!(is_header_name(&name), HeaderName::from_str(&name).is_ok(), "{c:?}");
        }
        assert_eq!(is_header_name(""), HeaderName::from_str("").is_ok());
    }
}
