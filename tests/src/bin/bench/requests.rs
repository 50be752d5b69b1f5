//! Publishes requests and measures rates and delays.

use std::ops::Range;
use std::time::{Duration, Instant};

use async_nats::jetstream::{self, message::PublishMessage};
use async_nats::{Client, Subscriber};
use dispatcher_tests::{Nats, wait};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::json;
use tokio::time::timeout;

use crate::environment::DEADLINE;

/// The concurrent publishes of a burst.
const PUBLISHES: usize = 256;

/// A `JetStream` context for many concurrent publishes.
pub(crate) async fn context(nats: &Nats) -> jetstream::Context {
    let builder = jetstream::context::ContextBuilder::default();
    builder.timeout(DEADLINE).backpressure_on_inflight(true).build(nats.client().await)
}

/// Publishes a request and waits for the ack.
pub(crate) async fn publish(context: &jetstream::Context, n: usize) -> Result<(), String> {
    send(context, json!({"foo": n.to_string()}).to_string(), None).await
}

/// Publishes a request for the Job `name`, with the name as its request id.
pub(crate) async fn publish_named(context: &jetstream::Context, name: &str) -> Result<(), String> {
    send(context, json!({"foo": "x", "name": name}).to_string(), Some(name)).await
}

async fn send(context: &jetstream::Context, payload: String, id: Option<&str>) -> Result<(), String> {
    let mut message = PublishMessage::build().payload(payload.into());
    if let Some(id) = id {
        message = message.message_id(id);
    }
    let sent = context.send_publish("jobs.simple.create", message).await;
    sent.map_err(|error| error.to_string())?.await.map(drop).map_err(|error| error.to_string())
}

/// Publishes requests concurrently.
pub(crate) async fn publish_all(context: &jetstream::Context, numbers: Range<usize>) -> Result<(), String> {
    stream::iter(numbers).map(|n| publish(context, n)).buffer_unordered(PUBLISHES).try_collect().await
}

/// Publishes requests; returns the seconds until every Job has a stored `ADDED` and every request is
/// acknowledged.
pub(crate) async fn burst(context: &jetstream::Context, numbers: Range<usize>) -> Result<f64, String> {
    let start = Instant::now();
    publish_all(context, numbers).await?;
    wait::try_until("every request to be acknowledged", DEADLINE, || async {
        let stream = context.get_stream("JOBS").await.map_err(|error| error.to_string())?;
        match stream.cached_info().state.messages {
            0 => Ok(()),
            queued => Err(format!("{queued} requests")),
        }
    })
    .await?;
    Ok(start.elapsed().as_secs_f64())
}

/// A client that sends one request at a time and receives its `ADDED`.
pub(crate) struct Caller {
    client: Client,
    events: Subscriber,
    name: String,
    sent: usize,
}

impl Caller {
    /// The names of its Jobs begin with `name`.
    pub(crate) async fn new(nats: &Nats, name: &str) -> Result<Self, String> {
        let client = nats.client().await;
        let events = client.subscribe("jobs.simple.status.*").await.map_err(|error| error.to_string())?;
        client.flush().await.map_err(|error| error.to_string())?;
        Ok(Self { client, events, name: name.to_owned(), sent: 0 })
    }

    /// The milliseconds from a publish until its `ADDED` is received.
    pub(crate) async fn call(&mut self) -> Result<f64, String> {
        self.sent += 1;
        let name = format!("{}-{}", self.name, self.sent);
        let subject = format!("jobs.simple.status.{name}");
        let payload = json!({"foo": "x", "name": name}).to_string();
        let start = Instant::now();
        let sent = self.client.publish("jobs.simple.create", payload.into()).await;
        sent.map_err(|error| error.to_string())?;
        loop {
            let event = timeout(DEADLINE, self.events.next()).await;
            let event = event.map_err(|_| format!("no event of {name} within {DEADLINE:?}"))?;
            if event.ok_or("the subscription ended")?.subject.as_str() == subject {
                return Ok(milliseconds(start.elapsed()));
            }
        }
    }
}

pub(crate) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
