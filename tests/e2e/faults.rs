//! The dispatcher dies, sleeps and stops, on the real parts: after each, the promises are checked over the whole streams and the cluster, with the
//! streams' deduplication window at its minimum, so that nothing leans on it.

use dispatcher_tests::checker::{History, assert_guarantees};
use dispatcher_tests::{Dispatcher, Kubernetes, Nats, or_skip, until};
use kube::api::DeleteParams;
use serde_json::json;

use dispatcher_tests::job_controller::{START_TIME as START, finished_status as finished, managed_template};
use dispatcher_tests::load_test::{DRAIN_TIMEOUT as REST, LoadTest as Run};
use dispatcher_tests::test_env::{TestEnv as World, header};
use dispatcher_tests::wait::TIMEOUT as PATIENCE;

/// The stream takes nothing more, so that the Job is created and its first event is not stored.
#[tokio::test(flavor = "multi_thread")]
async fn killed_right_after_the_create() {
    let run = or_skip!(Run::start().await);
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

/// A NATS whose user `mute` gets no ack through, and a run on it. What the mute dispatcher does is done, and nobody hears.
async fn with_mute_user() -> Result<(Run, tempfile::TempDir), String> {
    let folder = dispatcher_tests::paths::temp_dir("accounts").unwrap();
    let users = r#"{user: anybody, password: ""}, {user: mute, password: m, permissions: {publish: {deny: "$JS.ACK.>"}}}"#;
    let config = format!("accounts {{A {{jetstream: enabled, users: [{users}]}}}}\nno_auth_user: anybody\n");
    std::fs::write(folder.path().join("nats.conf"), config).unwrap();
    let nats =
        Nats::process_with(&["--config", &folder.path().join("nats.conf").display().to_string()]).await;
    let namespace = Kubernetes::shared().await?.namespace().await;
    let run = Run::new(World::new(nats, namespace).await).await;
    assert_eq!(run.dispatcher.terminate().await, Some(0));
    Ok((run, folder))
}

async fn mute(run: &Run) -> (Dispatcher, tempfile::TempDir) {
    let (folder, templates) = managed_template();
    let mute = run.env.dispatcher().templates(templates).env("NATS_USER", "mute").env("NATS_PASSWORD", "m");
    (mute.start().await, folder)
}

async fn assert_not_acknowledged(run: &Run) {
    let jobs = run.env.jetstream.get_stream("JOBS").await.unwrap();
    assert_eq!(jobs.cached_info().state.messages, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_right_after_the_first_event() {
    let (run, _accounts) = or_skip!(with_mute_user().await);
    let (mute, _folder) = mute(&run).await;
    run.request("wait-a", "ADDED").await;
    mute.kill().await;
    assert_not_acknowledged(&run).await;
    run.dispatcher.restart().await;
    run.complete(&["wait-a"]).await;
    run.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_between_the_copy_of_a_rejected_request_and_its_end() {
    let (run, _accounts) = or_skip!(with_mute_user().await);
    let (mute, _folder) = mute(&run).await;
    let sequence = run.recorder.publish("simple", r#"{"foo":7}"#, Some("bad")).await.unwrap();
    run.env.dead_letter(sequence).await;
    mute.kill().await;
    assert_not_acknowledged(&run).await;
    run.dispatcher.restart().await;
    run.env.until_queue_is_empty().await;
    assert_eq!(run.env.dead_letters().await.len(), 1, "the copy that is there is seen");
    run.finish().await;
}

/// The reason for a rejection goes away between its copy and its end: it stays rejected.
#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_request_stays_rejected_when_its_reason_goes_away() {
    let (run, _accounts) = or_skip!(with_mute_user().await);
    let (mute, _folder) = mute(&run).await;
    run.request("wait-a", "ADDED").await;
    let second = r#"{"foo":"x","name":"wait-a"}"#;
    let sequence = run.recorder.publish("simple", second, Some("second")).await.unwrap();
    assert_eq!(header(&run.env.dead_letter(sequence).await, "Job-Error"), "NameTaken");
    mute.kill().await;
    run.env.namespace.jobs.delete("wait-a", &DeleteParams::background()).await.unwrap();
    run.dispatcher.restart().await;
    run.finish().await;
}

/// The fence expects 0 where the last message of a subject is gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_history_that_is_purged_under_way_still_ends_in_one_outcome() {
    let run = or_skip!(Run::start().await);
    run.request("wait-a", "ADDED").await;
    let stream = run.env.jetstream.get_stream("JOB_STATUS").await.unwrap();
    stream.purge().filter("jobs.simple.status.wait-a").await.unwrap();
    run.complete(&["wait-a"]).await;
    run.env.outcome("wait-a").await;
    // A subscriber saw what was purged.
    let history = History { live: None, ..run.recorder.finish(REST).await.unwrap() };
    assert_guarantees(&history);
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_end_and_vanish_while_it_is_down() {
    let run = or_skip!(Run::start().await);
    // Of the last two only the ADDED is said: nobody has touched them.
    for name in ["wait-done", "wait-failed", "wait-gone", "wait-done-and-gone", "wait-added", "wait-again"] {
        run.request(name, "ADDED").await;
    }
    for name in ["wait-done", "wait-failed", "wait-gone", "wait-done-and-gone"] {
        run.env.set_status(name, json!({"startTime": START, "active": 1, "ready": 0})).await;
        run.env.until_last(name, "MODIFIED").await;
    }
    run.env.until_queue_is_empty().await;
    run.dispatcher.kill().await;
    run.complete(&["wait-done", "wait-done-and-gone"]).await;
    run.env.set_status("wait-failed", finished("Failed", 4, "BackoffLimitExceeded", "words")).await;
    for name in ["wait-gone", "wait-done-and-gone", "wait-added", "wait-again"] {
        run.env.namespace.jobs.delete(name, &DeleteParams::background()).await.unwrap();
    }
    // A second Job under the name of one that vanished unseen.
    run.recorder.publish("simple", r#"{"foo":"x","name":"wait-again"}"#, Some("again")).await.unwrap();
    run.dispatcher.restart().await;
    for (name, result) in [
        ("wait-done", "Complete"),
        ("wait-failed", "Failed"),
        ("wait-gone", "Deleted"),
        ("wait-added", "Deleted"),
    ] {
        assert_eq!(run.env.outcome(name).await["result"], result, "{name}");
    }
    run.env.outcome("wait-done-and-gone").await;
    run.env.until_last("wait-again", "ADDED").await;
    run.complete(&["wait-again"]).await;
    until("both Jobs of that name to have their outcomes", PATIENCE, || async {
        let types = run.env.event_types("wait-again").await;
        (types.iter().filter(|t| *t == "OUTCOME").count() == 2).then_some(()).ok_or(types)
    })
    .await;
    assert_kept_but_for_unseen_ends(run).await;
}

/// A Job that ended and vanished while nobody watched can only be told as `Deleted`: the checker, which did watch, knows
/// better. That one is left out.
async fn assert_kept_but_for_unseen_ends(run: Run) {
    let mut history = run.recorder.finish(REST).await.unwrap();
    for job in history.jobs.iter_mut().filter(|job| job.name == "wait-done-and-gone") {
        job.finish = dispatcher_tests::checker::history::Finish::Unknown;
    }
    assert_guarantees(&history);
}
