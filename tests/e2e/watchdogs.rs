//! Streams and consumers that are deleted at runtime: the dispatcher becomes unready, retries with
//! backoff, and recovers without a restart when they are recreated.

use std::time::Duration;

use dispatcher_tests::job_controller::{finished_status, managed_template};
use dispatcher_tests::test_env::{TestEnv, shipped_config};
use dispatcher_tests::wait::TIMEOUT;
use dispatcher_tests::{Dispatcher, or_skip, until};
use futures::StreamExt;
use serde_json::{Value, json};

async fn until_readyz(dispatcher: &Dispatcher, code: u16, fragment: &str) {
    until(&format!("/readyz to answer {code} with {fragment:?}"), TIMEOUT, || async {
        let answer = dispatcher.get("/readyz").await?;
        if answer.0 == code && answer.1.contains(fragment) { Ok(()) } else { Err(format!("{answer:?}")) }
    })
    .await;
}

/// Asserts that calls of the `JetStream` API and log lines are few during an outage.
async fn assert_no_busy_retries(env: &TestEnv, dispatcher: &Dispatcher) {
    const SECONDS: u64 = 10;
    let lines = || dispatcher.log().lines().count();
    let before = lines();
    let calls = env.client.subscribe("$JS.API.>").await.unwrap();
    let end = tokio::time::sleep(Duration::from_secs(SECONDS));
    let calls = calls.take_until(Box::pin(end)).count().await;
    let lines = lines() - before;
    println!("{SECONDS} s of an outage: {calls} calls, {lines} log lines");
    assert!(calls < 200 && lines < 100, "busy retries: {calls} calls, {lines} log lines");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_provision_waits_for_a_deleted_consumer() {
    let env = or_skip!(TestEnv::start().await);
    let (_folder, templates) = managed_template();
    // The first start creates the streams.
    assert_eq!(env.dispatcher().templates(&templates).start().await.terminate().await, Some(0));
    let dispatcher = env.dispatcher().templates(&templates).arg("--no-provision").start().await;
    let jobs = env.jetstream.get_stream("JOBS").await.unwrap();
    jobs.delete_consumer("dispatcher-simple").await.unwrap();
    until_readyz(&dispatcher, 503, "consumer dispatcher-simple of stream JOBS").await;
    env.request(r#"{"foo":"a"}"#).await;
    assert_no_busy_retries(&env, &dispatcher).await;
    let created: Value = env
        .jetstream
        .request(
            "CONSUMER.DURABLE.CREATE.JOBS.dispatcher-simple",
            &json!({"stream_name": "JOBS", "config": shipped_config("dispatcher-simple")}),
        )
        .await
        .unwrap();
    assert!(created["error"].is_null(), "{created}");
    env.until_last("simple-job-a", "ADDED").await;
    until_readyz(&dispatcher, 200, "ready").await;
}

/// An idle dispatcher also notices the deletion. Unfinished Jobs are published to the new stream.
#[tokio::test(flavor = "multi_thread")]
async fn deleted_status_stream_makes_the_dispatcher_unready_until_recreated() {
    let env = or_skip!(TestEnv::start().await);
    let (_folder, templates) = managed_template();
    let dispatcher = env.dispatcher().templates(templates).start().await;
    env.request(r#"{"foo":"a"}"#).await;
    env.until_last("simple-job-a", "ADDED").await;
    let stream = env.jetstream.get_stream("JOB_STATUS").await.unwrap();
    let config = stream.cached_info().config.clone();
    env.jetstream.delete_stream("JOB_STATUS").await.unwrap();
    until_readyz(&dispatcher, 503, "stream JOB_STATUS").await;
    assert_no_busy_retries(&env, &dispatcher).await;
    env.jetstream.create_stream(config).await.unwrap();
    env.until_last("simple-job-a", "ADDED").await;
    until_readyz(&dispatcher, 200, "ready").await;
    env.set_status("simple-job-a", finished_status("Complete", 0, "CompletionsReached", "done")).await;
    assert_eq!(env.outcome("simple-job-a").await["result"], "Complete");
}

/// Derived request ids use the identity of the stream, so it is read again from the new one.
#[tokio::test(flavor = "multi_thread")]
async fn deleted_request_stream_makes_the_dispatcher_unready_until_recreated() {
    let env = or_skip!(TestEnv::start().await);
    let (_folder, templates) = managed_template();
    let dispatcher = env.dispatcher().templates(templates).start().await;
    let config = env.jetstream.get_stream("JOBS").await.unwrap().cached_info().config.clone();
    env.jetstream.delete_stream("JOBS").await.unwrap();
    until_readyz(&dispatcher, 503, "stream JOBS").await;
    assert_no_busy_retries(&env, &dispatcher).await;
    env.jetstream.create_stream(config).await.unwrap();
    env.request(r#"{"foo":"a"}"#).await;
    env.until_last("simple-job-a", "ADDED").await;
    until_readyz(&dispatcher, 200, "ready").await;
    dispatcher.kill().await;
    dispatcher.restart().await;
    env.request(r#"{"foo":"b"}"#).await;
    env.until_last("simple-job-b", "ADDED").await;
    assert_eq!(env.dead_letters().await.len(), 0);
}
