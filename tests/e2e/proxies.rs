//! The proxies of the testbed: they forward everything, inject the requested faults, and hold
//! exactly one call or message.

use std::pin::pin;

use async_nats::jetstream;
use dispatcher_tests::kubernetes::ready;
use dispatcher_tests::proxy::{ApiProxy, NatsProxy, Publish};
use dispatcher_tests::wait::TIMEOUT;
use dispatcher_tests::{Kubernetes, Namespace, Nats, or_skip, until};
use futures::StreamExt;
use k8s_openapi::api::batch::v1::Job;
use kube::Api;
use kube::api::{ListParams, PostParams, WatchEvent, WatchParams};
use kube::runtime::{WatchStreamExt, watcher};
use local_cluster::faults::{Behaviour, Calls, Failure, WatchFault};
use serde_json::json;
use tokio::time::timeout;

/// A namespace, a proxy of its API, and a client of its Jobs through the proxy without retries.
async fn api_proxy() -> Result<(Namespace, ApiProxy, Api<Job>), String> {
    let namespace = Kubernetes::shared().await?.namespace().await;
    let proxy = ApiProxy::start(&namespace.dispatcher_kubeconfig).await;
    let mut config = ready::config(&proxy.kubeconfig)?;
    config.default_retry = false;
    let jobs = Api::namespaced(config.try_into().unwrap(), &namespace.name);
    Ok((namespace, proxy, jobs))
}

/// A Job that the Job controller of Kubernetes does not run.
fn job(name: &str) -> Job {
    let pod = json!({"restartPolicy": "Never", "containers": [{"name": "a", "image": "a"}]});
    serde_json::from_value(json!({"metadata": {"name": name},
        "spec": {"managedBy": "tests.example.org/none", "template": {"spec": pod}}}))
    .unwrap()
}

async fn create(jobs: &Api<Job>, name: &str) -> Result<(), kube::Error> {
    jobs.create(&PostParams::default(), &job(name)).await.map(drop)
}

fn code(error: &kube::Error) -> Option<u16> {
    if let kube::Error::Api(status) = error { Some(status.code) } else { None }
}

#[tokio::test(flavor = "multi_thread")]
async fn api_call_fails_before_or_after_it_takes_effect() {
    let (namespace, proxy, jobs) = or_skip!(api_proxy().await);
    create(&jobs, "before").await.unwrap();
    for (name, failure, expected_code, exists) in [
        ("refused", Failure::Code(429), Some(429), false),
        ("late-code", Failure::CodeAfter(504), Some(504), true),
        ("broken", Failure::Break, None, false),
        ("broken-after", Failure::BreakAfter, None, true),
    ] {
        proxy.faults.fail(Calls::of("create", "jobs"), 1, failure);
        let error = create(&jobs, name).await.unwrap_err();
        assert_eq!(code(&error), expected_code, "{name}: {error}");
        let found = namespace.jobs.get_opt(name).await.unwrap();
        assert_eq!(found.is_some(), exists, "{name}");
    }
    proxy.faults.refuse_connections(true);
    let error = jobs.get("before").await.unwrap_err();
    assert_eq!(code(&error), None, "{error}");
    proxy.faults.refuse_connections(false);
    jobs.get("before").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn api_call_is_held_before_or_after_it_takes_effect() {
    let (namespace, proxy, jobs) = or_skip!(api_proxy().await);
    let creates = || Calls::of("create", "jobs");
    let spawn_create = |name: &'static str| {
        let jobs = jobs.clone();
        tokio::spawn(async move { create(&jobs, name).await })
    };
    let second = proxy.hold_before(creates(), 2);
    create(&jobs, "first").await.unwrap();
    let held = spawn_create("second");
    second.reached().await;
    assert!(namespace.jobs.get_opt("second").await.unwrap().is_none(), "a held call took effect");
    second.release();
    held.await.unwrap().unwrap();
    let done = proxy.hold_after(creates(), 1);
    let held = spawn_create("done");
    done.reached().await;
    namespace.jobs.get("done").await.expect("the call took no effect");
    assert!(!held.is_finished(), "the caller got an answer");
    done.release();
    held.await.unwrap().unwrap();
    let cut = proxy.hold_before(creates(), 1);
    let held = spawn_create("cut");
    cut.reached().await;
    cut.cut();
    held.await.unwrap().unwrap_err();
    assert!(namespace.jobs.get_opt("cut").await.unwrap().is_none());
    // A held call ends with its caller.
    let left = proxy.hold_before(creates(), 1);
    let held = spawn_create("left");
    left.reached().await;
    held.abort();
    held.await.unwrap_err();
    create(&jobs, "next").await.unwrap();
    left.release();
    create(&jobs, "last").await.unwrap();
    assert!(namespace.jobs.get_opt("left").await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn api_watch_stalls_and_fails() {
    let (namespace, proxy, jobs) = or_skip!(api_proxy().await);
    let watches = || Calls::of("watch", "jobs");
    let next = |event: Option<kube::Result<WatchEvent<Job>>>| match event.expect("the watch ended") {
        Ok(WatchEvent::Added(job)) => job.metadata.name.unwrap(),
        other => panic!("{other:?}"),
    };
    let version = jobs.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    let mut events = pin!(jobs.watch(&WatchParams::default(), &version).await.unwrap());
    create(&namespace.jobs, "one").await.unwrap();
    assert_eq!(next(timeout(TIMEOUT, events.next()).await.unwrap()), "one");
    proxy.faults.set_behaviour(watches(), Behaviour::Stall);
    create(&namespace.jobs, "two").await.unwrap();
    // A direct watch has the event.
    let mut direct = pin!(watcher(namespace.jobs.clone(), watcher::Config::default()).applied_objects());
    for _ in 0..2 {
        timeout(TIMEOUT, direct.next()).await.unwrap().unwrap().unwrap();
    }
    assert!(futures::poll!(events.next()).is_pending(), "a stalled watch delivered an event");
    proxy.faults.reset_behaviours();
    assert_eq!(next(timeout(TIMEOUT, events.next()).await.unwrap()), "two");
    proxy.faults.inject(watches(), WatchFault::Error(410));
    let event = timeout(TIMEOUT, events.next()).await.unwrap();
    assert!(matches!(&event, Some(Ok(WatchEvent::Error(error))) if error.code == 410), "{event:?}");
    assert!(timeout(TIMEOUT, events.next()).await.unwrap().is_none(), "the watch did not end");
}

/// A server, its proxy, a client through the proxy, and the stream `S` of `s.>` without the proxy.
async fn nats_proxy() -> (Nats, NatsProxy, jetstream::Context, jetstream::stream::Stream) {
    let nats = Nats::process().await;
    let proxy = NatsProxy::start(&nats.url).await;
    let config = jetstream::stream::Config {
        name: "S".to_owned(),
        subjects: vec!["s.>".to_owned()],
        ..Default::default()
    };
    let stream = jetstream::new(nats.client().await).create_stream(config).await.unwrap();
    let context = jetstream::new(async_nats::connect(&proxy.url).await.unwrap());
    (nats, proxy, context, stream)
}

async fn stored(stream: &jetstream::stream::Stream) -> u64 {
    stream.get_info().await.unwrap().state.messages
}

#[tokio::test(flavor = "multi_thread")]
async fn publish_is_held_with_all_later_ones_of_the_connection() {
    let (_nats, proxy, context, stream) = nats_proxy().await;
    let second = proxy.hold_before(Publish::to("s.*").with("held"), 2);
    for payload in ["held: not the first", "other"] {
        context.publish("s.a", payload.into()).await.unwrap().await.unwrap();
    }
    let held = context.publish("s.a", "held: the second".into()).await.unwrap();
    let after = context.publish("s.b", "after".into()).await.unwrap();
    second.reached().await;
    // Other connections are not affected.
    let other = jetstream::new(async_nats::connect(&proxy.url).await.unwrap());
    other.publish("s.c", "of another".into()).await.unwrap().await.unwrap();
    assert_eq!(stored(&stream).await, 3);
    second.release();
    held.await.unwrap();
    after.await.unwrap();
    assert_eq!(stored(&stream).await, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn publish_acknowledgement_is_held() {
    let (_nats, proxy, context, stream) = nats_proxy().await;
    let done = proxy.hold_after(Publish::to("s.>"), 1);
    let mut held = pin!(context.publish("s.a", "".into()).await.unwrap().into_future());
    assert!(futures::poll!(&mut held).is_pending());
    done.reached().await;
    assert_eq!(stored(&stream).await, 1, "the message is not stored");
    assert!(futures::poll!(&mut held).is_pending(), "the publisher got the acknowledgement");
    done.release();
    held.await.unwrap();
    let cut = proxy.hold_after(Publish::to("s.>"), 1);
    let held = context.publish("s.a", "".into()).await.unwrap();
    cut.reached().await;
    cut.cut();
    assert_eq!(stored(&stream).await, 2, "the message is not stored");
    held.await.unwrap_err();
}

#[tokio::test(flavor = "multi_thread")]
async fn nats_connection_is_partitioned_half_open_or_slow() {
    let (_nats, proxy, context, stream) = nats_proxy().await;
    proxy.partition();
    async_nats::connect(&proxy.url).await.unwrap_err();
    proxy.heal();
    let publish = |payload: &'static str| {
        until("a publish to be stored", TIMEOUT, || async {
            context
                .publish("s.a", payload.into())
                .await
                .map_err(|error| error.to_string())?
                .await
                .map_err(|error| error.to_string())
        })
    };
    publish("after a partition").await;
    let before = stored(&stream).await;
    proxy.half_open();
    let held = context.publish("s.a", "".into()).await.unwrap();
    assert_eq!(stored(&stream).await, before);
    proxy.heal();
    held.await.unwrap();
    assert_eq!(stored(&stream).await, before + 1, "the message is not stored after the fault");
    proxy.slow(std::time::Duration::from_millis(1), 1_000_000);
    publish("slowly").await;
}
