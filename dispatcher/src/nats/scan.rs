//! Reads what a stream holds now, by headers only: a million messages in seconds.

use std::time::Duration;

use async_nats::{
    HeaderMap,
    jetstream::{
        consumer::{Consumer, DeliverPolicy, pull::OrderedConfig},
        stream::Stream,
    },
};
use futures::StreamExt;
use tokio::time::timeout;

/// How long the next message may take.
const DEADLINE: Duration = Duration::from_secs(5);

/// Gives `each` the subject, headers and sequence of every message on `subject` that is there now.
///
/// # Errors
/// Where the stream does not answer, or stops answering under way: then what was given is not all.
pub async fn scan(
    stream: &Stream<()>,
    subject: String,
    from: DeliverPolicy,
    each: impl FnMut(&str, &HeaderMap, u64),
) -> Result<(), String> {
    let config = OrderedConfig {
        deliver_policy: from,
        filter_subject: subject,
        headers_only: true,
        ..OrderedConfig::default()
    };
    let consumer = bounded(stream.create_consumer(config)).await?;
    let name = consumer.cached_info().name.clone();
    let done = read(consumer, each).await;
    // It would go by itself, half a minute later: hundreds of scans a second would leave thousands.
    if let Err(error) = bounded(stream.delete_consumer(&name)).await {
        tracing::debug!(error, "a consumer is left to expire");
    }
    done
}

async fn read(
    consumer: Consumer<OrderedConfig>,
    mut each: impl FnMut(&str, &HeaderMap, u64),
) -> Result<(), String> {
    if consumer.cached_info().num_pending == 0 {
        return Ok(());
    }
    let none = HeaderMap::new();
    let mut messages = bounded(consumer.messages()).await?;
    loop {
        let next = timeout(DEADLINE, messages.next()).await.map_err(|_| late())?;
        let message = next.ok_or("scan: it ended early")?.map_err(|e| format!("scan: {e}"))?;
        let info = message.info().map_err(|e| format!("scan: {e}"))?;
        each(&message.subject, message.headers.as_ref().unwrap_or(&none), info.stream_sequence);
        if info.pending == 0 {
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
