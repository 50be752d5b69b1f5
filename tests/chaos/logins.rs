//! Who the dispatcher is to NATS, and what it may do there, change under load.

use std::time::{Duration, Instant};

use dispatcher_tests::{Kubernetes, Nats, paths};
use futures::StreamExt;
use tempfile::TempDir;
use tokio::time::sleep;

use crate::scenario::repeat_on;
use dispatcher_tests::load_test::LoadTest;
use dispatcher_tests::test_env::TestEnv;

/// The dispatcher has a password; everybody else is let in, and sees all.
fn config(password: &str, denied: &str) -> String {
    let deny = if denied.is_empty() { String::new() } else { format!("\"{denied}\"") };
    let dispatcher = format!(
        "{{user: dispatcher, password: \"{password}\", permissions: {{publish: {{allow: \">\", deny: [{deny}]}}}}}}"
    );
    let users = format!("{{user: anybody, password: \"\"}}, {dispatcher}");
    format!("accounts {{A {{jetstream: enabled, users: [{users}]}}}}\nno_auth_user: anybody\n")
}

/// A run whose dispatcher logs in with the password in a file.
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

/// As an operator does it: first the file that the dispatcher reads, then the server.
#[tokio::test(flavor = "multi_thread")]
async fn the_password_is_rotated() {
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

/// The server has the new password before the dispatcher does: it is let in as soon as its file is there.
#[tokio::test(flavor = "multi_thread")]
async fn the_password_comes_late() {
    let folder = paths::temp_dir("password").unwrap();
    let fault = "the dispatcher's new NATS password comes late";
    repeat_on(
        fault,
        async || start(&folder).await,
        async |scenario, random| {
            tokio::join!(scenario.load(0, 200), async {
                scenario.until_jobs(random.usize(1..150)).await;
                scenario.env.nats.configure(&config("second", "")).await;
                let before = scenario.dispatcher.log().lines().count();
                // The fault itself lasts this long.
                sleep(Duration::from_millis(random.u64(1_000..10_000))).await;
                let lines = scenario.dispatcher.log().lines().count() - before;
                assert!(lines < 800, "no flood of log lines: {lines}");
                std::fs::write(folder.path().join("password"), "second").unwrap();
                scenario.works_again("right NATS password given", Instant::now()).await;
            });
            scenario.redeliver_now().await;
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn permissions_are_taken_away() {
    let folder = paths::temp_dir("password").unwrap();
    let fault = "NATS permissions are taken away and given back";
    repeat_on(
        fault,
        async || start(&folder).await,
        async |scenario, random| {
            let rights = [
                "dispatcher.event.>",
                "$JS.API.CONSUMER.MSG.NEXT.>",
                "$JS.ACK.>",
                "jobs.*.rejected",
                "$JS.API.>",
            ];
            tokio::join!(scenario.load(0, 200), async {
                scenario.until_jobs(random.usize(1..150)).await;
                let denied = rights[random.usize(..rights.len())];
                scenario.env.nats.configure(&config("first", denied)).await;
                let calls = scenario.env.client.subscribe("$JS.API.>").await.unwrap();
                let before = scenario.dispatcher.log().lines().count();
                let seconds = random.u64(3..12);
                // The fault itself lasts this long.
                let calls = calls.take_until(Box::pin(sleep(Duration::from_secs(seconds)))).count().await;
                let lines = scenario.dispatcher.log().lines().count() - before;
                println!("without {denied}, in {seconds} s: {calls} calls, {lines} lines");
                scenario.env.nats.configure(&config("first", "")).await;
                scenario.works_again("NATS permissions given back", Instant::now()).await;
                assert!(
                    calls < 1000 && lines < 1000,
                    "it spins without {denied}: {calls} calls, {lines} lines"
                );
            });
            scenario.until_ready().await;
            scenario.redeliver_now().await;
        },
    )
    .await;
}
