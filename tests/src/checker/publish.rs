//! Publishes requests and records them correctly, even if an ack is lost.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use async_nats::jetstream::Context;
use async_nats::jetstream::context::{PublishError as NatsError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use tokio::time::sleep;

use super::history::Request;

/// How long to wait for one ack.
pub(super) const ACK_TIMEOUT: Duration = Duration::from_secs(3);
/// How long to retry.
const RETRY_PERIOD: Duration = Duration::from_secs(60);
const RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// A publish that was not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublishError {
    /// It is not stored, and not in the record.
    Refused(String),
    /// It may be stored, and is in the record without a sequence.
    Unanswered(String),
}

impl fmt::Display for PublishError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(text) => write!(formatter, "publish refused: {text}"),
            Self::Unanswered(text) => write!(formatter, "no ack for the publish: {text}"),
        }
    }
}

/// The published requests, and when each was first acknowledged.
#[derive(Debug, Default)]
pub(super) struct Record(Mutex<Vec<Request>>, Mutex<BTreeMap<u64, SystemTime>>);

impl Record {
    pub(super) fn add(&self, request: Request) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(request);
    }

    pub(super) fn all(&self) -> Vec<Request> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// When each request was first acknowledged, by its sequence.
    pub(super) fn times(&self) -> BTreeMap<u64, SystemTime> {
        self.1.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn acknowledged(&self, sequence: u64) {
        let mut times = self.1.lock().unwrap_or_else(PoisonError::into_inner);
        times.entry(sequence).or_insert_with(SystemTime::now);
    }
}

/// Publishes until there is an answer. After a lost ack it retries only with a `Nats-Msg-Id`, by
/// which two stored messages are one request.
pub(super) async fn publish(
    context: &Context,
    record: &Record,
    request: Request,
) -> Result<u64, PublishError> {
    let end = Instant::now() + RETRY_PERIOD;
    let mut lost = false;
    loop {
        let error = match attempt(context, &request).await {
            Ok((seq, duplicate)) => {
                record.acknowledged(seq);
                record.add(Request { seq: Some(seq), duplicate, ..request });
                return Ok(seq);
            }
            Err(error) => error,
        };
        let late = Instant::now() > end;
        match error.kind() {
            // No responders: the server or the stream does not exist yet.
            PublishErrorKind::StreamNotFound if !late => {}
            PublishErrorKind::TimedOut | PublishErrorKind::BrokenPipe => {
                if !lost {
                    record.add(request.clone());
                }
                lost = true;
                if late || request.msg_id.is_none() {
                    return Err(PublishError::Unanswered(error.to_string()));
                }
            }
            _ if lost => return Err(PublishError::Unanswered(error.to_string())),
            _ => return Err(PublishError::Refused(error.to_string())),
        }
        sleep(RETRY_INTERVAL).await;
    }
}

async fn attempt(context: &Context, request: &Request) -> Result<(u64, bool), NatsError> {
    let mut message = PublishMessage::build().payload(request.payload.clone().into());
    if let Some(id) = &request.msg_id {
        message = message.message_id(id);
    }
    let answer = context.send_publish(format!("jobs.{}.create", request.template), message).await?.await?;
    Ok((answer.sequence, answer.duplicate))
}
