//! The dispatcher's NATS credentials and permissions change under load.

use std::time::{Duration, Instant};

use dispatcher_tests::{Kubernetes, Nats, paths};
use futures::StreamExt;
use tempfile::TempDir;
use tokio::time::sleep;

use crate::scenario::repeat_on;
use dispatcher_tests::load_test::LoadTest;
use dispatcher_tests::test_env::TestEnv;

/// A NATS configuration with a password and denied subjects for the dispatcher; all other clients
/// have every permission.
fn config(password: &str, denied: &str) -> String {
    let deny = if denied.is_empty() { String::new() } else { format!("\"{denied}\"") };
    let dispatcher = format!(
        "{{user: dispatcher, password: \"{password}\", permissions: {{publish: {{allow: \">\", deny: [{deny}]}}}}}}"
    );
    let users = format!("{{user: other, password: \"\"}}, {dispatcher}");
    format!("accounts {{A {{jetstream: enabled, users: [{users}]}}}}\nno_auth_user: other\n")
}

/// A load test whose dispatcher reads its password from a file.
async fn start(folder: &TempDir) -> Result<LoadTest, String> {
    let namespace = Kubernetes::shared().await?.namespace().await;
    let mut env = TestEnv::new(Nats::process_configured(&config("first", "")).await, namespace).await;
    let file = folder.path().join("password");
    std::fs::write(&file, "first").unwrap();
    env.settings = [("NATS_USER", "dispatcher"), ("NATS_PASSWORD_FILE", &file.display().to_string())]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec();
    Ok(LoadTest::new(env).await)
}

/// In the documented order: first the dispatcher's file, then the server.
#[tokio::test(flavor = "multi_thread")]
async fn nats_password_rotated() {
    let folder = paths::temp_dir("password").unwrap();
    repeat_on(
        "the dispatcher's NATS password is rotated",
        async || start(&folder).await,
        async |scenario, random| {
            tokio::join!(scenario.load(0, 300), async {
                for (round, password) in ["second", "third", "fourth"].into_iter().enumerate() {
                    scenario.until_jobs(round * 80 + random.usize(1..80)).await;
                    std::fs::write(folder.path().join("password"), password).unwrap();
                    let rotated = Instant::now();
                    scenario.env.nats.configure(&config(password, "")).await;
                    scenario.works_again("NATS credentials rotated", rotated).await;
                }
            });
            scenario.redeliver_now().await;
        },
    )
    .await;
}

/// The server gets the new password first. The dispatcher reconnects once its file is updated.
#[tokio::test(flavor = "multi_thread")]
async fn nats_password_updated_late() {
    let folder = paths::temp_dir("password").unwrap();
    let fault = "the dispatcher's NATS password is updated late";
    repeat_on(
        fault,
        async || start(&folder).await,
        async |scenario, random| {
            tokio::join!(scenario.load(0, 200), async {
                scenario.until_jobs(random.usize(1..150)).await;
                scenario.env.nats.configure(&config("second", "")).await;
                let before = scenario.dispatcher.log().lines().count();
                // The duration of the fault.
                sleep(Duration::from_millis(random.u64(1_000..10_000))).await;
                let lines = scenario.dispatcher.log().lines().count() - before;
                assert!(lines < 800, "too many log lines: {lines}");
                std::fs::write(folder.path().join("password"), "second").unwrap();
                scenario.works_again("correct NATS password provided", Instant::now()).await;
            });
            scenario.redeliver_now().await;
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nats_permissions_revoked() {
    let folder = paths::temp_dir("password").unwrap();
    let fault = "NATS permissions are revoked and granted again";
    repeat_on(
        fault,
        async || start(&folder).await,
        async |scenario, random| {
            let rights = [
                "dispatcher.event.>",
                "$JS.API.CONSUMER.MSG.NEXT.>",
                "$JS.ACK.>",
                "jobs.*.rejected.*",
                "$JS.API.>",
            ];
            tokio::join!(scenario.load(0, 200), async {
                scenario.until_jobs(random.usize(1..150)).await;
                let denied = rights[random.usize(..rights.len())];
                scenario.env.nats.configure(&config("first", denied)).await;
                let calls = scenario.env.client.subscribe("$JS.API.>").await.unwrap();
                let before = scenario.dispatcher.log().lines().count();
                let seconds = random.u64(3..12);
                // The duration of the fault.
                let calls = calls.take_until(Box::pin(sleep(Duration::from_secs(seconds)))).count().await;
                let lines = scenario.dispatcher.log().lines().count() - before;
                println!("without {denied}, in {seconds} s: {calls} calls, {lines} lines");
                scenario.env.nats.configure(&config("first", "")).await;
                scenario.works_again("NATS permissions granted again", Instant::now()).await;
                assert!(
                    calls < 1000 && lines < 1000,
                    "busy loop without {denied}: {calls} calls, {lines} log lines"
                );
            });
            scenario.until_ready().await;
            scenario.redeliver_now().await;
        },
    )
    .await;
}
