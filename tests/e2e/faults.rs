//! The dispatcher is killed, paused and stopped. After each fault the history checker verifies the
//! guarantees over all streams and the cluster. The deduplication window is at its minimum, so no
//! guarantee depends on it.

use dispatcher_tests::checker::history::Finish;
use dispatcher_tests::checker::{History, assert_guarantees};
use dispatcher_tests::job_controller::{START_TIME, finished_status, managed_template};
use dispatcher_tests::load_test::{DRAIN_TIMEOUT, LoadTest};
use dispatcher_tests::test_env::{TestEnv, header};
use dispatcher_tests::wait::TIMEOUT;
use dispatcher_tests::{Dispatcher, Kubernetes, Nats, or_skip, until};
use kube::api::DeleteParams;
use serde_json::json;

/// A full `JOB_STATUS` stores no event, so the kill comes between the creation and the first event.
#[tokio::test(flavor = "multi_thread")]
async fn kill_after_job_creation_loses_no_event() {
    let run = or_skip!(LoadTest::start().await);
    run.request("wait-a", "ADDED").await;
    let open = run.env.fill_status_stream().await;
    run.recorder.publish("simple", r#"{"foo":"x","name":"wait-b"}"#, Some("b")).await.unwrap();
    run.env.job("wait-b").await;
    run.dispatcher.kill().await;
    assert_eq!(run.env.history("wait-b").await.len(), 0);
    run.env.jetstream.update_stream(open).await.unwrap();
    run.dispatcher.restart().await;
    run.env.until_last("wait-b", "ADDED").await;
    run.complete(&["wait-a", "wait-b"]).await;
    run.finish().await;
}

/// NATS with a user `mute` that may not acknowledge, and a run on it. A dispatcher with this user
/// does its work, but its requests stay in the queue.
async fn with_mute_user() -> Result<(LoadTest, tempfile::TempDir), String> {
    let folder = dispatcher_tests::paths::temp_dir("accounts").unwrap();
    let users = r#"{user: default, password: ""}, {user: mute, password: m, permissions: {publish: {deny: "$JS.ACK.>"}}}"#;
    let config = format!("accounts {{A {{jetstream: enabled, users: [{users}]}}}}\nno_auth_user: default\n");
    std::fs::write(folder.path().join("nats.conf"), config).unwrap();
    let nats =
        Nats::process_with(&["--config", &folder.path().join("nats.conf").display().to_string()]).await;
    let namespace = Kubernetes::shared().await?.namespace().await;
    let run = LoadTest::new(TestEnv::new(nats, namespace).await).await;
    assert_eq!(run.dispatcher.terminate().await, Some(0));
    Ok((run, folder))
}

async fn start_mute(run: &LoadTest) -> (Dispatcher, tempfile::TempDir) {
    let (folder, templates) = managed_template();
    let mute = run.env.dispatcher().templates(templates).env("NATS_USER", "mute").env("NATS_PASSWORD", "m");
    (mute.start().await, folder)
}

async fn assert_unacknowledged(run: &LoadTest) {
    let jobs = run.env.jetstream.get_stream("JOBS").await.unwrap();
    assert_eq!(jobs.cached_info().state.messages, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_before_the_acknowledgement_creates_no_second_job() {
    let (run, _accounts) = or_skip!(with_mute_user().await);
    let (mute, _folder) = start_mute(&run).await;
    run.request("wait-a", "ADDED").await;
    mute.kill().await;
    assert_unacknowledged(&run).await;
    run.dispatcher.restart().await;
    run.complete(&["wait-a"]).await;
    run.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_between_dead_letter_and_acknowledgement_keeps_one_dead_letter() {
    let (run, _accounts) = or_skip!(with_mute_user().await);
    let (mute, _folder) = start_mute(&run).await;
    let sequence = run.recorder.publish("simple", r#"{"foo":7}"#, Some("bad")).await.unwrap();
    run.env.dead_letter(sequence).await;
    mute.kill().await;
    assert_unacknowledged(&run).await;
    run.dispatcher.restart().await;
    run.env.until_queue_is_empty().await;
    assert_eq!(run.env.dead_letters().await.len(), 1, "a second dead letter");
    run.finish().await;
}

/// The Job that caused the rejection is deleted between the dead letter and the
/// acknowledgement.
#[tokio::test(flavor = "multi_thread")]
async fn rejected_request_stays_rejected_after_its_cause_is_gone() {
    let (run, _accounts) = or_skip!(with_mute_user().await);
    let (mute, _folder) = start_mute(&run).await;
    run.request("wait-a", "ADDED").await;
    let second = r#"{"foo":"x","name":"wait-a"}"#;
    let sequence = run.recorder.publish("simple", second, Some("second")).await.unwrap();
    assert_eq!(header(&run.env.dead_letter(sequence).await, "Job-Error"), "NameTaken");
    mute.kill().await;
    run.env.namespace.jobs.delete("wait-a", &DeleteParams::background()).await.unwrap();
    run.dispatcher.restart().await;
    run.finish().await;
}

/// After the purge the expected last sequence of the subject is 0.
#[tokio::test(flavor = "multi_thread")]
async fn purged_history_still_ends_in_one_outcome() {
    let run = or_skip!(LoadTest::start().await);
    run.request("wait-a", "ADDED").await;
    let stream = run.env.jetstream.get_stream("JOB_STATUS").await.unwrap();
    stream.purge().filter("jobs.simple.status.wait-a").await.unwrap();
    run.complete(&["wait-a"]).await;
    run.env.outcome("wait-a").await;
    // The live subscription received the purged messages, so it differs from the stream.
    let history = History { live: None, ..run.recorder.finish(DRAIN_TIMEOUT).await.unwrap() };
    assert_guarantees(&history);
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_finish_or_disappear_during_downtime_get_their_outcomes() {
    let run = or_skip!(LoadTest::start().await);
    // For the last two only ADDED is published.
    for name in
        ["wait-done", "wait-failed", "wait-deleted", "wait-done-and-deleted", "wait-added", "wait-reused"]
    {
        run.request(name, "ADDED").await;
    }
    for name in ["wait-done", "wait-failed", "wait-deleted", "wait-done-and-deleted"] {
        run.env.set_status(name, json!({"startTime": START_TIME, "active": 1, "ready": 0})).await;
        run.env.until_last(name, "MODIFIED").await;
    }
    run.env.until_queue_is_empty().await;
    run.dispatcher.kill().await;
    run.complete(&["wait-done", "wait-done-and-deleted"]).await;
    run.env.set_status("wait-failed", finished_status("Failed", 4, "BackoffLimitExceeded", "message")).await;
    for name in ["wait-deleted", "wait-done-and-deleted", "wait-added", "wait-reused"] {
        run.env.namespace.jobs.delete(name, &DeleteParams::background()).await.unwrap();
    }
    // A second Job with the name of a Job that was deleted during the downtime.
    run.recorder.publish("simple", r#"{"foo":"x","name":"wait-reused"}"#, Some("reused")).await.unwrap();
    run.dispatcher.restart().await;
    for (name, result) in [
        ("wait-done", "Complete"),
        ("wait-failed", "Failed"),
        ("wait-deleted", "Deleted"),
        ("wait-added", "Deleted"),
    ] {
        assert_eq!(run.env.outcome(name).await["result"], result, "{name}");
    }
    run.env.outcome("wait-done-and-deleted").await;
    run.env.until_last("wait-reused", "ADDED").await;
    run.complete(&["wait-reused"]).await;
    until("the outcomes of both Jobs of that name", TIMEOUT, || async {
        let types = run.env.event_types("wait-reused").await;
        (types.iter().filter(|t| *t == "OUTCOME").count() == 2).then_some(()).ok_or(types)
    })
    .await;
    assert_guarantees_except_unobserved_ends(run).await;
}

/// A Job that finished and was deleted during the downtime gets the outcome `Deleted`. The recorder
/// observed its real end, so the checker must not compare the two.
async fn assert_guarantees_except_unobserved_ends(run: LoadTest) {
    let mut history = run.recorder.finish(DRAIN_TIMEOUT).await.unwrap();
    for job in history.jobs.iter_mut().filter(|job| job.name == "wait-done-and-deleted") {
        job.finish = Finish::Unknown;
    }
    assert_guarantees(&history);
}
