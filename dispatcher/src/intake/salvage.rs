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

use super::{
    legible::legible,
    reject::{DeadLetters, Letter},
    request::{Envelope, Identity},
};
use crate::{
    contract::{
        names::Kind,
        rejection::{Reason, Rejection},
    },
    nats::{definitions::JOBS, origin::Origin, requests},
};

const DEADLINE: Duration = Duration::from_secs(5);
/// Requests that are looked at beyond those that were delivered, at a start: whatever is pulled first.
const AHEAD: u64 = 1024;
/// Requests that are looked at in one round.
const MOST: usize = 10_000;

/// See the module.
#[derive(Clone)]
pub struct Salvage {
    /// JetStream.
    pub context: jetstream::Context,
    /// Which `JOBS` it is.
    pub stream: Origin,
    /// The consumers to look after.
    pub consumers: Vec<(Kind, PullConsumer)>,
    /// Keeps what is found.
    pub dead_letters: DeadLetters,
}

impl Salvage {
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
        for (kind, consumer) in &self.consumers {
            if let Err(error) = self.look(kind, consumer, ahead).await {
                // The next round looks again; whatever is wrong is told by the rooms that pull.
                tracing::debug!(%kind, error, "requests are not looked through");
            }
        }
    }

    async fn look(&self, kind: &Kind, consumer: &PullConsumer, ahead: u64) -> Result<(), String> {
        let info = timeout(DEADLINE, consumer.get_info()).await.map_err(|_| late())?;
        let info = info.map_err(|e| e.to_string())?;
        if info.num_ack_pending == 0 && (ahead == 0 || info.num_pending == 0) {
            return Ok(());
        }
        let last = info.delivered.stream_sequence.saturating_add(ahead);
        let mut next = info.ack_floor.stream_sequence.saturating_add(1);
        for _ in 0..MOST {
            let Some(message) =
                requests::first(&self.context, kind, next).await?.filter(|message| message.sequence <= last)
            else {
                break;
            };
            next = message.sequence.saturating_add(1);
            self.judge(kind, message).await?;
        }
        Ok(())
    }

    async fn judge(&self, kind: &Kind, message: RawMessage) -> Result<(), String> {
        let headers = decode(message.headers.as_deref().unwrap_or_default())?;
        let Err(problem) = legible(&headers) else { return Ok(()) };
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
        tracing::info!(%kind, request_seq = message.sequence, message = rejection.message, "request rejected");
        let letter = Letter {
            kind,
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
            // Gone already: another replica was quicker.
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
