//! Crashes at any await point, and faults in any mix: the seed says which.

use std::time::Duration;

use fastrand::Rng;
use local_cluster::faults::{Behaviour, Calls, Failure, WatchFault};

use crate::scenario::{Scenario, repeat};

/// Requests for each round, and rounds.
const REQUESTS: usize = 8;
const ROUNDS: usize = 12;

/// One fault of any sort. Few calls are struck by each, so that none holds up the run for long.
fn go_wrong(scenario: &Scenario, random: &mut Rng) {
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
            let strikes = [
                WatchFault::End,
                WatchFault::Break,
                WatchFault::Truncate,
                WatchFault::Error(410),
                WatchFault::Error(code),
            ];
            faults.inject(watches, random.choice(strikes).unwrap());
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

/// A random moment of a round: after so many of its requests became Jobs, which is no matter of time.
async fn some_way_into(scenario: &Scenario, round: usize, random: &mut Rng) {
    // One in twenty is bad.
    let made = (round * REQUESTS).saturating_sub(ROUNDS);
    scenario.until_jobs(made + random.usize(0..REQUESTS / 2)).await;
    for _ in 0..random.u32(0..200) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dispatcher_crashes_again_and_again() {
    repeat("crashes at any await point", async |scenario, random| {
        for round in 0..ROUNDS {
            scenario.load(round * REQUESTS, REQUESTS).await;
            some_way_into(scenario, round, random).await;
            scenario.crash().await;
        }
    })
    .await;
}

async fn any_mix(scenario: &mut Scenario, random: &mut Rng, crashes: bool) {
    for round in 0..ROUNDS {
        for _ in 0..random.u32(1..4) {
            go_wrong(scenario, random);
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
async fn faults_in_any_mix() {
    repeat("faults in any mix", async |scenario, random| any_mix(scenario, random, false).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_and_crashes_in_any_mix() {
    repeat("faults and crashes in any mix", async |scenario, random| any_mix(scenario, random, true).await)
        .await;
}
