//! Reads whole streams.

use std::time::{Duration, SystemTime};

use async_nats::HeaderMap;
use async_nats::jetstream::consumer::{DeliverPolicy, pull::OrderedConfig};
use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::stream::{Info, Stream};
use async_nats::jetstream::{Context, ErrorCode};
use futures::StreamExt;
use serde_json::Value;
use tokio::time::timeout;

use super::history::{DeadLetter, Headers, StatusMessage};

/// How long to wait for one answer.
const DEADLINE: Duration = Duration::from_secs(5);

/// A stored message.
pub(super) struct Stored {
    pub(super) seq: u64,
    pub(super) subject: String,
    pub(super) headers: Headers,
    pub(super) payload: Vec<u8>,
    pub(super) time: SystemTime,
}

impl From<Stored> for StatusMessage {
    fn from(stored: Stored) -> Self {
        let Stored { seq, subject, headers, payload, .. } = stored;
        Self { stream_seq: seq, subject, headers, event: json(&payload) }
    }
}

impl From<Stored> for DeadLetter {
    fn from(stored: Stored) -> Self {
        let Stored { seq, subject, headers, payload, .. } = stored;
        Self { stream_seq: seq, subject, headers, payload }
    }
}

pub(super) fn json(payload: &[u8]) -> Value {
    serde_json::from_slice(payload).unwrap_or_default()
}

/// The stream; `None` if it does not exist.
async fn open(context: &Context, name: &str) -> Result<Option<Stream<Info>>, String> {
    match timeout(DEADLINE, context.get_stream(name)).await {
        Err(_) => Err(format!("stream {name}: timed out")),
        Ok(Ok(stream)) => Ok(Some(stream)),
        Ok(Err(error)) => match error.kind() {
            GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                Ok(None)
            }
            _ => Err(format!("stream {name}: {error}")),
        },
    }
}

/// The number of messages and the last sequence; zeros if the stream does not exist.
pub(super) async fn state(context: &Context, name: &str) -> Result<(u64, u64), String> {
    let stream = open(context, name).await?;
    Ok(stream.map_or((0, 0), |stream| {
        let state = &stream.cached_info().state;
        (state.messages, state.last_sequence)
    }))
}

/// Every message after a sequence, in order.
pub(super) async fn read(context: &Context, name: &str, after: u64) -> Result<Vec<Stored>, String> {
    let failed = |error: &dyn std::fmt::Display| format!("reading stream {name}: {error}");
    let Some(stream) = open(context, name).await? else { return Ok(vec![]) };
    if stream.cached_info().state.last_sequence <= after {
        return Ok(vec![]);
    }
    let deliver_policy = DeliverPolicy::ByStartSequence { start_sequence: after + 1 };
    let config = OrderedConfig { deliver_policy, ..OrderedConfig::default() };
    let consumer = timeout(DEADLINE, stream.create_consumer(config)).await;
    let consumer = consumer.map_err(|late| failed(&late))?.map_err(|error| failed(&error))?;
    let mut all = Vec::new();
    if consumer.cached_info().num_pending == 0 {
        return Ok(all);
    }
    let mut messages = consumer.messages().await.map_err(|error| failed(&error))?;
    while let Some(message) = timeout(DEADLINE, messages.next()).await.map_err(|late| failed(&late))? {
        let message = message.map_err(|error| failed(&error))?;
        let info = message.info().map_err(|error| failed(&error))?;
        let (seq, pending, time) = (info.stream_sequence, info.pending, info.published.into());
        let headers = message.headers.as_ref().map(headers).unwrap_or_default();
        let (subject, payload) = (message.subject.to_string(), message.payload.to_vec());
        all.push(Stored { seq, subject, headers, payload, time });
        if pending == 0 {
            return Ok(all);
        }
    }
    Err(failed(&"ended early"))
}

fn headers(map: &HeaderMap) -> Headers {
    let first = |(name, values): (&async_nats::HeaderName, &Vec<async_nats::HeaderValue>)| {
        Some((name.to_string(), values.first()?.as_str().to_owned()))
    };
    map.iter().filter_map(first).collect()
}
