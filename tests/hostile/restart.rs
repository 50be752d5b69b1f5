//! A restart with many earlier dead letters, and bad and good requests in the queue.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use async_nats::{Subscriber, jetstream};
use dispatcher_tests::attacks::HOSTILE;
use dispatcher_tests::wait::TIMEOUT;
use dispatcher_tests::{only_on_kubernetes, or_skip, paths, until};
use futures::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::environment::{Environment, INNOCENT};
use crate::report::print;
use crate::size::Size;

/// The time within which good requests flow after a restart.
const FLOWING: Duration = Duration::from_secs(10);
/// How many requests are published at a time.
const CONCURRENCY: usize = 64;

#[tokio::test(flavor = "multi_thread")]
async fn good_requests_flow_after_a_restart_with_bad_ones_and_many_dead_letters() {
    only_on_kubernetes!("the dispatcher runs in pods");
    let size = Size::from_env();
    let environment = or_skip!(Environment::start(paths::NATS_VERSION).await);
    let context = &environment.env.jetstream;
    // Given: dead letters of earlier requests, and a queue of bad and good requests.
    publish(context, HOSTILE, size.dead_letters, |_| "{".to_owned()).await;
    until_count(context, "JOB_REJECTED", size.dead_letters).await;
    environment.dispatchers.delete().await;
    publish(context, HOSTILE, size.queued, |_| "{".to_owned()).await;
    publish(context, HOSTILE, size.queued, |number| json!({"id": number.to_string()}).to_string()).await;
    publish(context, INNOCENT, size.queued, |number| json!({"id": number.to_string()}).to_string()).await;
    let events = environment.env.nats.client().await.subscribe(format!("jobs.{INNOCENT}.status.*")).await;
    let added = tokio::spawn(until_added(events.unwrap(), size.queued));
    // When: both replicas start.
    environment.dispatchers.create().await;
    environment.dispatchers.until_ready().await;
    let ready = Instant::now();
    // Then: every good request has a Job, and every bad one a dead letter.
    let added = added.await.unwrap();
    let after = |time: Option<&Instant>| time.unwrap().saturating_duration_since(ready).as_secs_f64();
    let flowed = added.iter().filter(|time| time.saturating_duration_since(ready) <= FLOWING).count();
    environment.env.until_queue_is_empty().await;
    let all = ready.elapsed();
    let jobs = environment.env.namespace.jobs.list(&kube::api::ListParams::default()).await.unwrap();
    assert_eq!(jobs.items.len(), 2 * size.queued);
    until_count(context, "JOB_REJECTED", size.dead_letters + size.queued).await;
    environment.dispatchers.assert_no_restart().await;
    print(&format!(
        "\nrestart after {} dead letters, {} bad and {} good requests of the hostile tenant in the queue: of \
         the {} good requests of the innocent tenant, the first has its ADDED {:.1} s after ready, {flowed} within \
         {} s, and the last after {:.1} s; the queue is empty after {:.1} s",
        size.dead_letters,
        size.queued,
        size.queued,
        size.queued,
        after(added.first()),
        FLOWING.as_secs(),
        after(added.last()),
        all.as_secs_f64()
    ));
}

async fn publish(
    context: &jetstream::Context,
    template: &str,
    count: usize,
    payload: impl Fn(usize) -> String,
) {
    let requests = (0..count).map(|number| {
        let (subject, payload) = (format!("jobs.{template}.create"), payload(number));
        async move { context.publish(subject, payload.into()).await.unwrap().await.unwrap() }
    });
    stream::iter(requests).buffer_unordered(CONCURRENCY).for_each(|_| async {}).await;
}

/// When each of `count` Jobs has its `ADDED`, in this order.
async fn until_added(mut events: Subscriber, count: usize) -> Vec<Instant> {
    let (mut added, mut times) = (BTreeSet::new(), Vec::new());
    while added.len() < count {
        let event = timeout(TIMEOUT, events.next()).await;
        let event = event.unwrap_or_else(|_| panic!("{} of {count} ADDED", added.len()));
        let event: Value = serde_json::from_slice(&event.unwrap().payload).unwrap();
        if event["type"] == "ADDED" && added.insert(event["name"].as_str().unwrap().to_owned()) {
            times.push(Instant::now());
        }
    }
    times
}

async fn until_count(context: &jetstream::Context, stream: &str, count: usize) {
    until(&format!("{count} messages in {stream}"), TIMEOUT, || async {
        let mut stream = context.get_stream(stream).await.map_err(|error| error.to_string())?;
        let found = stream.info().await.map_err(|error| error.to_string())?.state.messages;
        if found == u64::try_from(count).unwrap() { Ok(()) } else { Err(found.to_string()) }
    })
    .await;
}
