//! Reads what a stream holds now, by headers only: a million messages in seconds.

use std::time::Duration;

use async_nats::{
    HeaderMap,
    jetstream::{
        consumer::{Consumer, DeliverPolicy, pull::OrderedConfig},
        stream::{LastRawMessageErrorKind, Stream},
    },
};
use futures::StreamExt;
use time::OffsetDateTime;
use tokio::time::timeout;

/// How long the next message may take.
const DEADLINE: Duration = Duration::from_secs(5);

/// Gives `each` the subject, headers and sequence of every message on `subject` that is there now.
///
/// The consumer may be on a replica that lags behind: the stream's leader is asked before which message is the last, and what
/// comes is all only with that one.
///
/// # Errors
/// Where the stream does not answer, or stops answering under way: then what was given is not all.
pub async fn scan(
    stream: &Stream<()>,
    subject: String,
    from: DeliverPolicy,
    each: impl FnMut(&str, &HeaderMap, u64),
) -> Result<(), String> {
    let last = match timeout(DEADLINE, stream.get_last_raw_message_by_subject(&subject)).await {
        Err(_) => return Err(late()),
        Ok(Err(error)) if error.kind() == LastRawMessageErrorKind::NoMessageFound => return Ok(()),
        Ok(Err(error)) => return Err(format!("scan: {error}")),
        Ok(Ok(last)) if !is_due(from, last.sequence, last.time) => return Ok(()),
        Ok(Ok(last)) => last.sequence,
    };
    let config = OrderedConfig {
        deliver_policy: from,
        filter_subject: subject,
        headers_only: true,
        ..OrderedConfig::default()
    };
    let consumer = bounded(stream.create_consumer(config)).await?;
    let name = consumer.cached_info().name.clone();
    let done = read(consumer, last, each).await;
    // It would go by itself, half a minute later: hundreds of scans a second would leave thousands.
    if let Err(error) = bounded(stream.delete_consumer(&name)).await {
        tracing::debug!(error, "a consumer is left to expire");
    }
    done
}

/// Whether a consumer that begins there gets the message of this sequence and time.
fn is_due(from: DeliverPolicy, sequence: u64, time: OffsetDateTime) -> bool {
    match from {
        DeliverPolicy::ByStartSequence { start_sequence } => sequence >= start_sequence,
        DeliverPolicy::ByStartTime { start_time } => time >= start_time,
        DeliverPolicy::New => false,
        DeliverPolicy::All | DeliverPolicy::Last | DeliverPolicy::LastPerSubject => true,
    }
}

/// Reads up to the message `last`, and what is there beyond it.
async fn read(
    consumer: Consumer<OrderedConfig>,
    last: u64,
    mut each: impl FnMut(&str, &HeaderMap, u64),
) -> Result<(), String> {
    let none = HeaderMap::new();
    let mut messages = bounded(consumer.messages()).await?;
    loop {
        let next = timeout(DEADLINE, messages.next()).await.map_err(|_| late())?;
        let message = next.ok_or("scan: it ended early")?.map_err(|e| format!("scan: {e}"))?;
        let info = message.info().map_err(|e| format!("scan: {e}"))?;
        each(&message.subject, message.headers.as_ref().unwrap_or(&none), info.stream_sequence);
        if info.pending == 0 && info.stream_sequence >= last {
            return Ok(());
        }
    }
}

async fn bounded<T, E: std::fmt::Display>(call: impl Future<Output = Result<T, E>>) -> Result<T, String> {
    timeout(DEADLINE, call).await.map_err(|_| late())?.map_err(|e| format!("scan: {e}"))
}

fn late() -> String {
    format!("scan: no answer within {} s", DEADLINE.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_message_is_due_unless_the_scan_begins_after_it() {
        let time = OffsetDateTime::UNIX_EPOCH;
        let later = time + Duration::from_secs(1);
        for (from, due) in [
            (DeliverPolicy::All, true),
            (DeliverPolicy::LastPerSubject, true),
            (DeliverPolicy::ByStartSequence { start_sequence: 7 }, true),
            (DeliverPolicy::ByStartSequence { start_sequence: 8 }, false),
            (DeliverPolicy::ByStartTime { start_time: time }, true),
            (DeliverPolicy::ByStartTime { start_time: later }, false),
        ] {
            assert_eq!(is_due(from, 7, time), due, "{from:?}");
        }
    }
}
