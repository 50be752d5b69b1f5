//! What is deleted under way: it is told, nothing spins, and when it is there again all goes on without a restart.

use std::time::Duration;

use dispatcher_tests::job_controller::{finished_status, managed_template};
use dispatcher_tests::test_env::{TestEnv, shipped_config};
use dispatcher_tests::wait::TIMEOUT;
use dispatcher_tests::{Dispatcher, or_skip, until};
use futures::StreamExt;
use serde_json::{Value, json};

async fn until_ready(dispatcher: &Dispatcher, code: u16, why: &str) {
    until(&format!("/readyz to say {code}, {why:?}"), TIMEOUT, || async {
        let answer = dispatcher.get("/readyz").await?;
        if answer.0 == code && answer.1.contains(why) { Ok(()) } else { Err(format!("{answer:?}")) }
    })
    .await;
}

/// Requests to JetStream and lines of the log, in the time of an outage.
async fn assert_nothing_spins(env: &TestEnv, dispatcher: &Dispatcher) {
    const SECONDS: u64 = 10;
    let lines = || dispatcher.log().lines().count();
    let before = lines();
    let calls = env.client.subscribe("$JS.API.>").await.unwrap();
    let end = tokio::time::sleep(Duration::from_secs(SECONDS));
    let calls = calls.take_until(Box::pin(end)).count().await;
    let lines = lines() - before;
    println!("in {SECONDS} s of an outage: {calls} calls, {lines} lines");
    assert!(calls < 200 && lines < 100, "it spins: {calls} calls, {lines} lines");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_to_make_a_consumer_it_waits_for_one() {
    let env = or_skip!(TestEnv::start().await);
    let (_folder, templates) = managed_template();
    // The first start makes the streams.
    assert_eq!(env.dispatcher().templates(&templates).start().await.terminate().await, Some(0));
    let dispatcher = env.dispatcher().templates(&templates).arg("--no-provision").start().await;
    let jobs = env.jetstream.get_stream("JOBS").await.unwrap();
    jobs.delete_consumer("dispatcher-simple").await.unwrap();
    until_ready(&dispatcher, 503, "consumer dispatcher-simple of stream JOBS").await;
    env.request(r#"{"foo":"a"}"#).await;
    assert_nothing_spins(&env, &dispatcher).await;
    let made: Value = env
        .jetstream
        .request(
            "CONSUMER.DURABLE.CREATE.JOBS.dispatcher-simple",
            &json!({"stream_name": "JOBS", "config": shipped_config("dispatcher-simple")}),
        )
        .await
        .unwrap();
    assert!(made["error"].is_null(), "{made}");
    env.until_last("simple-job-a", "ADDED").await;
    until_ready(&dispatcher, 200, "ready").await;
}

/// A dispatcher with nothing to do notices too; and what is open is told again in the new stream.
#[tokio::test(flavor = "multi_thread")]
async fn a_status_stream_that_is_deleted_is_told_and_taken_when_it_is_back() {
    let env = or_skip!(TestEnv::start().await);
    let (_folder, templates) = managed_template();
    let dispatcher = env.dispatcher().templates(templates).start().await;
    env.request(r#"{"foo":"a"}"#).await;
    env.until_last("simple-job-a", "ADDED").await;
    let stream = env.jetstream.get_stream("JOB_STATUS").await.unwrap();
    let config = stream.cached_info().config.clone();
    env.jetstream.delete_stream("JOB_STATUS").await.unwrap();
    until_ready(&dispatcher, 503, "stream JOB_STATUS").await;
    assert_nothing_spins(&env, &dispatcher).await;
    env.jetstream.create_stream(config).await.unwrap();
    env.until_last("simple-job-a", "ADDED").await;
    until_ready(&dispatcher, 200, "ready").await;
    env.set_status("simple-job-a", finished_status("Complete", 0, "CompletionsReached", "done")).await;
    assert_eq!(env.outcome("simple-job-a").await["result"], "Complete");
}

/// A request has the same identity after a restart: its stream's is read anew.
#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_deleted_is_told_and_taken_when_it_is_back() {
    let env = or_skip!(TestEnv::start().await);
    let (_folder, templates) = managed_template();
    let dispatcher = env.dispatcher().templates(templates).start().await;
    let config = env.jetstream.get_stream("JOBS").await.unwrap().cached_info().config.clone();
    env.jetstream.delete_stream("JOBS").await.unwrap();
    until_ready(&dispatcher, 503, "stream JOBS").await;
    assert_nothing_spins(&env, &dispatcher).await;
    env.jetstream.create_stream(config).await.unwrap();
    env.request(r#"{"foo":"a"}"#).await;
    env.until_last("simple-job-a", "ADDED").await;
    until_ready(&dispatcher, 200, "ready").await;
    dispatcher.kill().await;
    dispatcher.restart().await;
    env.request(r#"{"foo":"b"}"#).await;
    env.until_last("simple-job-b", "ADDED").await;
    assert_eq!(env.dead_letters().await.len(), 0);
}
