//! Crashes at any await point and random faults; the seed determines them.

use std::time::Duration;

use fastrand::Rng;
use local_cluster::faults::{Behaviour, Calls, Failure, WatchFault};

use crate::scenario::{Scenario, repeat};

/// Requests per round, and rounds.
const REQUESTS: usize = 8;
const ROUNDS: usize = 12;

/// Injects a random fault. It affects only a few calls, so that the run stays short.
fn inject_random_fault(scenario: &Scenario, random: &mut Rng) {
    let faults = &scenario.faults;
    let verb = random.choice(["create", "create", "get", "list", "patch", "watch"]).unwrap();
    let calls = Calls::of(verb, "jobs");
    let watches = Calls::of("watch", "jobs");
    let code = random.choice([429, 500, 503, 504]).unwrap();
    let times = random.u32(1..4);
    match random.u32(0..10) {
        0 => faults.fail(calls, times, Failure::Code(code)),
        1 => faults.fail(calls, times, Failure::CodeAfter(code)),
        2 => faults.fail(calls, times, Failure::Break),
        3 => faults.fail(calls, times, Failure::BreakAfter),
        4 => faults.delay(calls, times, Duration::from_millis(random.u64(1..300))),
        5 => {
            let faults_of_watch = [
                WatchFault::End,
                WatchFault::Break,
                WatchFault::Truncate,
                WatchFault::Error(410),
                WatchFault::Error(code),
            ];
            faults.inject(watches, random.choice(faults_of_watch).unwrap());
        }
        6 => faults.fail(
            watches,
            times,
            random.choice([Failure::WatchError(410), Failure::Code(410)]).unwrap(),
        ),
        7 => {
            faults.forget_history();
            faults.inject(watches, WatchFault::Break);
        }
        8 => {
            let behaviours = [Behaviour::Stall, Behaviour::Merge, Behaviour::Repeat, Behaviour::NoBookmarks];
            faults.set_behaviour(watches, random.choice(behaviours).unwrap());
        }
        _ => faults.reset_behaviours(),
    }
}

/// Waits for a random moment of a round, by the number of its Jobs instead of by time.
async fn until_some_jobs_exist(scenario: &Scenario, round: usize, random: &mut Rng) {
    // One request in twenty is invalid.
    let jobs = (round * REQUESTS).saturating_sub(ROUNDS);
    scenario.until_jobs(jobs + random.usize(0..REQUESTS / 2)).await;
    for _ in 0..random.u32(0..200) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dispatcher_crashes_repeatedly() {
    repeat("crashes at any await point", async |scenario, random| {
        for round in 0..ROUNDS {
            scenario.load(round * REQUESTS, REQUESTS).await;
            until_some_jobs_exist(scenario, round, random).await;
            scenario.crash().await;
        }
    })
    .await;
}

async fn inject_random_faults(scenario: &mut Scenario, random: &mut Rng, crashes: bool) {
    for round in 0..ROUNDS {
        for _ in 0..random.u32(1..4) {
            inject_random_fault(scenario, random);
        }
        scenario.load(round * REQUESTS, REQUESTS).await;
        if crashes && random.bool() {
            for _ in 0..random.u32(0..200) {
                tokio::task::yield_now().await;
            }
            scenario.crash().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn random_faults() {
    repeat("random faults", async |scenario, random| inject_random_faults(scenario, random, false).await)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn random_faults_and_crashes() {
    repeat("random faults and crashes", async |scenario, random| {
        inject_random_faults(scenario, random, true).await;
    })
    .await;
}
