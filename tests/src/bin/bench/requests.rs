//! Publishes requests and measures rates and delays.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use async_nats::jetstream::{self, context::ContextBuilder};
use dispatcher_tests::{Nats, until};
use futures::{StreamExt, stream};
use serde_json::json;
use tokio::time::timeout;

use crate::{Run, cpu};

const DEADLINE: Duration = Duration::from_secs(120);

/// A `JetStream` context for many concurrent publishes.
pub(crate) async fn context(nats: &Nats) -> jetstream::Context {
    let builder = ContextBuilder::default().timeout(DEADLINE).backpressure_on_inflight(true);
    builder.build(nats.client().await)
}

/// Publishes a request and waits for the ack.
pub(crate) async fn publish(context: &jetstream::Context, n: usize) -> Result<(), String> {
    let payload = json!({"foo": n.to_string()}).to_string();
    let sent =
        context.publish("jobs.simple.create", payload.into()).await.map_err(|error| error.to_string())?;
    sent.await.map(drop).map_err(|error| error.to_string())
}

/// Publishes requests and measures the time until every Job has a stored `ADDED` and every request
/// is acknowledged, and the dispatcher's CPU time.
pub(crate) async fn burst(
    context: &jetstream::Context,
    pid: u32,
    numbers: Range<usize>,
) -> Result<Run, String> {
    let before = cpu::seconds(pid)?;
    let start = Instant::now();
    stream::iter(numbers)
        .map(|n| publish(context, n))
        .buffer_unordered(256)
        .collect::<Vec<Result<(), String>>>()
        .await
        .into_iter()
        .collect::<Result<(), String>>()?;
    until("every request to be acknowledged", DEADLINE, || async {
        let stream = context.get_stream("JOBS").await.map_err(|error| error.to_string())?;
        match stream.cached_info().state.messages {
            0 => Ok(()),
            queued => Err(format!("{queued} requests")),
        }
    })
    .await;
    Ok(Run { seconds: start.elapsed().as_secs_f64(), cpu: cpu::seconds(pid)? - before })
}

/// Publishes requests one after the other and measures the time, in milliseconds, until a plain
/// subscriber receives the `ADDED`.
pub(crate) async fn to_added(
    context: &jetstream::Context,
    name: &str,
    count: usize,
) -> Result<Vec<f64>, String> {
    let client = context.client();
    let mut events = client.subscribe("jobs.simple.status.*").await.map_err(|error| error.to_string())?;
    client.flush().await.map_err(|error| error.to_string())?;
    let mut all = Vec::new();
    for number in 0..count {
        let name = format!("{name}-{number}");
        let start = Instant::now();
        let payload = json!({"foo": "x", "name": name}).to_string();
        let sent = context.publish("jobs.simple.create", payload.into()).await;
        sent.map_err(|error| error.to_string())?.await.map_err(|error| error.to_string())?;
        let subject = format!("jobs.simple.status.{name}");
        loop {
            let next = timeout(DEADLINE, events.next())
                .await
                .map_err(|_| format!("timed out waiting for an event of {name}"))?;
            if next.ok_or("the subscription ended")?.subject.as_str() == subject {
                break;
            }
        }
        all.push(start.elapsed().as_secs_f64() * 1000.0);
    }
    Ok(all)
}

/// The quantile of sorted values.
#[expect(clippy::cast_possible_truncation, reason = "an index of a small vector")]
pub(crate) fn at(values: &[f64], part: f64) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    values.get((last as f64 * part).round() as usize).copied().unwrap_or(f64::NAN)
}
