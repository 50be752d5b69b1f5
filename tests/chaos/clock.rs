//! The dispatcher's wall clock is wrong or is stepped. Its monotonic clock is correct, as on a
//! machine whose clock is adjusted.

use std::path::{Path, PathBuf};
use std::time::Instant;

use dispatcher_tests::{Kubernetes, Nats, or_skip, paths};
use tempfile::TempDir;

use crate::leadership::{leader_and_follower, until_leads};
use crate::scenario::{Scenario, repeat, repeat_on};
use dispatcher_tests::load_test::LoadTest;
use dispatcher_tests::test_env::TestEnv;

/// The environment that shifts the clock of a process by the offset in a file.
fn clock(folder: &TempDir) -> Result<Vec<(String, String)>, String> {
    let library = paths::faketime()?;
    set(folder, 0);
    let file = file(folder);
    let settings: [(&str, &Path); 4] = [
        ("LD_PRELOAD", &library),
        ("FAKETIME_TIMESTAMP_FILE", &file),
        ("FAKETIME_NO_CACHE", Path::new("1")),
        ("FAKETIME_DONT_FAKE_MONOTONIC", Path::new("1")),
    ];
    Ok(settings.map(|(name, value)| (name.to_owned(), value.display().to_string())).to_vec())
}

fn file(folder: &TempDir) -> PathBuf {
    folder.path().join("offset")
}

/// Sets the offset in seconds.
fn set(folder: &TempDir, seconds: i64) {
    // Replaces the file atomically: it is read at any moment.
    let half = folder.path().join("half");
    std::fs::write(&half, format!("{seconds:+}\n")).unwrap();
    std::fs::rename(half, file(folder)).unwrap();
}

async fn start(folder: &TempDir) -> Result<LoadTest, String> {
    let settings = clock(folder)?;
    let namespace = Kubernetes::shared().await?.namespace().await;
    let mut env = TestEnv::new(Nats::process().await, namespace).await;
    env.settings = settings;
    Ok(LoadTest::new(env).await)
}

/// By minutes or hours, forwards or backwards.
#[tokio::test(flavor = "multi_thread")]
async fn clock_stepped() {
    let folder = paths::temp_dir("clock").unwrap();
    repeat_on(
        "the dispatcher's clock is stepped",
        async || start(&folder).await,
        async |scenario, random| {
            tokio::join!(scenario.load(0, 200), async {
                for round in 0..4 {
                    scenario.until_jobs(round * 40 + random.usize(1..40)).await;
                    let off = random.i64(60..4 * 3600);
                    let stepped = Instant::now();
                    set(&folder, if random.bool() { off } else { -off });
                    let name = format!("wait-{round}");
                    scenario.until_works(&name).await;
                    scenario.recovered("clock stepped", stepped);
                    scenario.complete(&[&name]).await;
                }
            });
            assert!(clock_was_stepped(scenario), "the log shows no stepped clock");
        },
    )
    .await;
}

/// Whether log lines are hours apart, which proves that the clock was stepped.
fn clock_was_stepped(scenario: &Scenario) -> bool {
    let log = scenario.dispatcher.log();
    let hours: std::collections::BTreeSet<_> =
        log.lines().filter_map(|line| line.split_once("\"timestamp\":\"")?.1.get(..16)).collect();
    hours.len() > 2
}

/// The election compares no clocks: the Lease is neither stolen nor held forever.
#[tokio::test(flavor = "multi_thread")]
async fn clock_of_one_replica_an_hour_off() {
    let folder = paths::temp_dir("clock").unwrap();
    let settings = or_skip!(clock(&folder));
    repeat("the clock of one of two replicas is an hour off", async |scenario, random| {
        set(&folder, if random.bool() { 3600 } else { -3600 });
        let builder = settings.iter().fold(scenario.replica(), |all, (name, value)| all.env(name, value));
        let off = builder.start().await;
        tokio::join!(scenario.load(0, 150), async {
            scenario.until_jobs(random.usize(1..100)).await;
            // Each replica takes over from the other once.
            for round in 0..2 {
                let (leader, other) = leader_and_follower(scenario, &off).await;
                let killed = Instant::now();
                leader.kill().await;
                until_leads(scenario, other).await;
                scenario.recovered("leader takeover after a kill, one clock an hour off", killed);
                leader.restart().await;
                let name = format!("wait-{round}");
                scenario.until_works(&name).await;
                scenario.complete(&[&name]).await;
            }
        });
        scenario.redeliver_now().await;
    })
    .await;
}
