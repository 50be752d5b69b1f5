//! The commands of `docs/backup-and-restore.md`, with the real `nats` CLI.

use std::path::Path;
use std::process::Command;

use dispatcher_tests::job_controller::{finished_status, managed_template};
use dispatcher_tests::test_env::TestEnv;
use dispatcher_tests::{or_skip, paths};
use kube::api::ListParams;

const STREAMS: [&str; 3] = ["JOBS", "JOB_STATUS", "JOB_REJECTED"];

/// Runs the `nats` CLI against the server of this test.
fn nats(env: &TestEnv, program: &Path, arguments: &[&str]) {
    let output = Command::new(program).args(["--server", &env.nats.url]).args(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "nats {}: {}{}",
        arguments.join(" "),
        text(&output.stdout),
        text(&output.stderr)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_restored_from_an_older_backup() {
    let program = or_skip!(paths::nats_cli());
    let env = or_skip!(TestEnv::start().await);
    let (_folder, templates) = managed_template();
    let dispatcher = env.dispatcher().templates(&templates).start().await;
    let backups = paths::temp_dir("backups").unwrap();
    let backup_of = |stream: &str| backups.path().join(stream).display().to_string();

    // Given a backup that holds an open Job, a queued request with an id, and a dead letter.
    env.request_with_id("open", r#"{"foo":"open"}"#).await;
    env.until_last("simple-job-open", "ADDED").await;
    let rejected = env.request("{}").await;
    env.dead_letter(rejected).await;
    env.until_queue_is_empty().await;
    assert_eq!(dispatcher.terminate().await, Some(0));
    env.request_with_id("queued", r#"{"foo":"queued"}"#).await;
    for stream in STREAMS {
        nats(&env, &program, &["stream", "backup", stream, &backup_of(stream)]);
    }

    // When the queued request becomes a Job, both Jobs finish, and then the streams are lost and
    // restored.
    let dispatcher = env.dispatcher().templates(&templates).start().await;
    env.until_last("simple-job-queued", "ADDED").await;
    let complete = || finished_status("Complete", 0, "CompletionsReached", "message");
    for name in ["simple-job-open", "simple-job-queued"] {
        env.set_status(name, complete()).await;
        env.outcome(name).await;
    }
    env.until_queue_is_empty().await;
    assert_eq!(dispatcher.terminate().await, Some(0));
    for stream in STREAMS {
        nats(&env, &program, &["stream", "rm", "--force", stream]);
        nats(&env, &program, &["stream", "restore", &backup_of(stream)]);
    }
    let before = env.namespace.jobs.list(&ListParams::default()).await.unwrap();
    let uids = |jobs: &kube::core::ObjectList<k8s_openapi::api::batch::v1::Job>| {
        jobs.items.iter().map(|job| job.metadata.uid.clone()).collect::<Vec<_>>()
    };
    let dispatcher = env.dispatcher().templates(&templates).start().await;

    // Then the open Job has its outcome again, the queued request is recognized as the one of the existing
    // Job, the dead letter is there, and the dispatcher works.
    assert_eq!(env.outcome("simple-job-open").await["result"], "Complete");
    env.until_queue_is_empty().await;
    env.request_with_id("new", r#"{"foo":"new"}"#).await;
    env.until_last("simple-job-new", "ADDED").await;
    env.dead_letter(rejected).await;
    assert_eq!(env.dead_letters().await.len(), 1, "a restored request was rejected");
    let mut after = env.namespace.jobs.list(&ListParams::default()).await.unwrap();
    after.items.retain(|job| job.metadata.name.as_deref() != Some("simple-job-new"));
    assert_eq!(uids(&before), uids(&after), "a Job was created twice");
    assert_eq!(dispatcher.terminate().await, Some(0));
}
