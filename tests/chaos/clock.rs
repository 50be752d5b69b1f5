//! The dispatcher's wall clock is wrong, or changes while it runs. Its monotonic clock is not touched, as on a machine whose clock is set.

use std::path::{Path, PathBuf};
use std::time::Instant;

use dispatcher_tests::{Dispatcher, Kubernetes, Nats, or_skip, paths, until};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use tempfile::TempDir;

use crate::scenario::{Scenario, repeat, repeat_on};
use dispatcher_tests::load_test::LoadTest;
use dispatcher_tests::test_env::TestEnv;
use dispatcher_tests::wait::TIMEOUT;

/// The settings with which a program goes by a clock of its own: it is off by what a file says.
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

/// Sets the clock: that many seconds off.
fn set(folder: &TempDir, seconds: i64) {
    // Whole or not at all: it is read at any moment.
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

/// By minutes or hours, forwards or back.
#[tokio::test(flavor = "multi_thread")]
async fn the_clock_is_stepped() {
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
            assert!(clock_is_off(scenario), "the log has times that are off");
        },
    )
    .await;
}

/// Whether the log has lines of another time than the one before by far: the clock was really stepped.
fn clock_is_off(scenario: &Scenario) -> bool {
    let log = scenario.dispatcher.log();
    let hours: std::collections::BTreeSet<_> =
        log.lines().filter_map(|line| line.split_once("\"timestamp\":\"")?.1.get(..16)).collect();
    hours.len() > 2
}

/// Of two replicas one is an hour off: the Lease goes by nobody's clock, and is neither stolen nor held for ever.
#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_replicas_is_an_hour_off() {
    let folder = paths::temp_dir("clock").unwrap();
    let settings = or_skip!(clock(&folder));
    repeat("of two replicas one has a clock that is an hour off", async |scenario, random| {
        set(&folder, if random.bool() { 3600 } else { -3600 });
        let builder = settings.iter().fold(scenario.replica(), |all, (name, value)| all.env(name, value));
        let off = builder.start().await;
        tokio::join!(scenario.load(0, 150), async {
            scenario.until_jobs(random.usize(1..100)).await;
            // Whoever reports is killed, and then the other one: each takes over from the other.
            for round in 0..2 {
                let (leader, other) = roles(scenario, &off).await;
                let killed = Instant::now();
                leader.kill().await;
                until_holds(scenario, other).await;
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

async fn holder(scenario: &Scenario) -> Result<String, String> {
    let leases: Api<Lease> =
        Api::namespaced(scenario.env.namespace.client.clone(), &scenario.env.namespace.name);
    let lease = leases.get("dispatcher").await.map_err(|error| error.to_string())?;
    Ok(lease.spec.and_then(|spec| spec.holder_identity).unwrap_or_default())
}

/// The one that reports, and the other one.
async fn roles<'a>(scenario: &'a Scenario, second: &'a Dispatcher) -> (&'a Dispatcher, &'a Dispatcher) {
    let first = &scenario.dispatcher;
    until("one of the two to report", TIMEOUT, || async {
        match holder(scenario).await? {
            holder if holder == first.pod => Ok((first, second)),
            holder if holder == second.pod => Ok((second, first)),
            holder => Err(holder),
        }
    })
    .await
}

async fn until_holds(scenario: &Scenario, dispatcher: &Dispatcher) {
    until("the other one to report", TIMEOUT, || async {
        let holder = holder(scenario).await?;
        if holder == dispatcher.pod { Ok(()) } else { Err(holder) }
    })
    .await;
}
