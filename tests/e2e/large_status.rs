//! A status that is larger than a message: its events and the outcome are published, shortened and
//! marked.

use std::path::PathBuf;

use dispatcher_tests::job_controller::{START_TIME, finished_status, managed_template};
use dispatcher_tests::test_env::TestEnv;
use dispatcher_tests::wait::TIMEOUT;
use dispatcher_tests::{or_skip, until};
use kube::api::DeleteParams;
use serde_json::{Value, json};

use crate::single_jobs::{another_job_is_retired, assert_ready, start_job};

/// A managed template whose Jobs have indexes.
fn indexed_template() -> (tempfile::TempDir, PathBuf) {
    let (folder, path) = managed_template();
    let file = path.join("simple.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    let line = "      backoffLimit: 3\n";
    let indexed = "      completionMode: Indexed\n      completions: 1000000\n      parallelism: 1\n";
    std::fs::write(file, text.replace(line, &format!("{line}{indexed}"))).unwrap();
    (folder, path)
}

/// Every second index: no range shortens the list.
fn completed_indexes(count: usize) -> String {
    (0..count).map(|index| (2 * index).to_string()).collect::<Vec<_>>().join(",")
}

fn large_status(count: usize) -> Value {
    json!({"startTime": START_TIME, "active": 1, "ready": 0, "terminating": 0, "succeeded": count,
           "completedIndexes": completed_indexes(count)})
}

#[tokio::test(flavor = "multi_thread")]
async fn status_larger_than_a_message_is_published_shortened_and_marked() {
    let env = or_skip!(TestEnv::start().await);
    let (_folder, templates) = indexed_template();
    let dispatcher = env.dispatcher().templates(templates).start().await;
    let (failed, deleted) = (start_job(&env, "failed").await, start_job(&env, "deleted").await);
    for name in [&failed, &deleted] {
        env.set_status(name, large_status(170_000)).await;
        let last = until("the large status", TIMEOUT, || async {
            let last = env.last_event(name).await;
            last.clone().filter(|last| last["status"]["succeeded"] == 170_000).ok_or(last)
        })
        .await;
        assert_eq!((&last["type"], &last["statusTruncated"]), (&json!("MODIFIED"), &json!(true)));
        assert_eq!(last["status"]["completedIndexes"], Value::Null);
        assert_eq!(last["status"]["startTime"], START_TIME);
    }
    let message = "Job has reached the specified backoff limit";
    env.set_status(&failed, finished_status("Failed", 4, "BackoffLimitExceeded", message)).await;
    let outcome = env.outcome(&failed).await;
    assert_eq!((&outcome["result"], &outcome["failed"]), (&json!("Failed"), &json!(4)), "{outcome}");
    assert_eq!(outcome["succeeded"], 170_000);
    assert_eq!(env.last_event(&failed).await.unwrap()["statusTruncated"], true);
    env.namespace.jobs.delete(&deleted, &DeleteParams::background()).await.unwrap();
    let outcome = env.outcome(&deleted).await;
    assert_eq!((&outcome["result"], &outcome["succeeded"]), (&json!("Deleted"), &json!(170_000)));
    assert_ready(&dispatcher).await;
    another_job_is_retired(&env, "other").await;
}

/// The Job is deleted while no dispatcher runs: its last event is the only record of its status.
#[tokio::test(flavor = "multi_thread")]
async fn outcome_from_a_shortened_event_keeps_its_counts_and_its_mark() {
    let env = or_skip!(TestEnv::start().await);
    let (_folder, templates) = indexed_template();
    let dispatcher = env.dispatcher().templates(templates).start().await;
    let name = start_job(&env, "a").await;
    env.set_status(&name, large_status(170_000)).await;
    until("the large status", TIMEOUT, || async {
        env.last_event(&name).await.filter(|last| last["statusTruncated"] == true)
    })
    .await;
    dispatcher.terminate().await;
    env.namespace.jobs.delete(&name, &DeleteParams::background()).await.unwrap();
    dispatcher.restart().await;
    let last = env.until_last(&name, "OUTCOME").await;
    assert_eq!((&last["outcome"]["succeeded"], &last["statusTruncated"]), (&json!(170_000), &json!(true)));
}

/// The stream has a smaller limit than the server.
#[tokio::test(flavor = "multi_thread")]
async fn event_larger_than_the_streams_messages_is_shortened_until_it_fits() {
    let env = or_skip!(TestEnv::start().await);
    let (_folder, templates) = indexed_template();
    let _dispatcher = env.dispatcher().templates(templates).start().await;
    let mut config = env.jetstream.get_stream("JOB_STATUS").await.unwrap().cached_info().config.clone();
    config.max_message_size = 64 * 1024;
    env.jetstream.update_stream(config).await.unwrap();
    let name = start_job(&env, "a").await;
    env.set_status(&name, large_status(20_000)).await;
    let last = until("the large status", TIMEOUT, || async {
        let last = env.last_event(&name).await;
        last.clone().filter(|last| last["status"]["succeeded"] == 20_000).ok_or(last)
    })
    .await;
    assert_eq!(last["statusTruncated"], true);
}
