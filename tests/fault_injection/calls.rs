//! Calls fail, before or after they are done, are late, or break.

use std::time::Duration;

use fastrand::Rng;
use local_cluster::faults::{Calls, Failure};

use crate::scenario::{Scenario, repeat};

fn creates() -> Calls {
    Calls::of("create", "jobs")
}

/// Requests while the next creates meet these failures, several of each.
async fn load_while_creates_fail(scenario: &Scenario, random: &mut Rng, failures: &[Failure]) {
    for failure in failures {
        scenario.faults.fail(creates(), random.u32(1..16), *failure);
    }
    scenario.load(0, random.usize(60..100)).await;
    scenario.until_struck().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn creates_are_refused_for_a_while() {
    let failures = [429, 500, 503, 504].map(Failure::Code);
    repeat("creates are answered with 429, 500, 503, 504", async |scenario, random| {
        load_while_creates_fail(scenario, random, &failures).await;
    })
    .await;
}

/// Each of them is there all the same, and is found when its request comes again.
#[tokio::test(flavor = "multi_thread")]
async fn creates_are_done_and_answered_with_an_error() {
    let failures = [504, 500, 503].map(Failure::CodeAfter);
    repeat("creates are done and answered with 504, 500, 503", async |scenario, random| {
        load_while_creates_fail(scenario, random, &failures).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_connection_breaks_before_or_after_a_create_is_done() {
    let failures = [Failure::Break, Failure::BreakAfter];
    repeat("connections break before or after a create is done", async |scenario, random| {
        load_while_creates_fail(scenario, random, &failures).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn creates_are_late() {
    repeat("creates are late", async |scenario, random| {
        let delay = Duration::from_millis(random.u64(10..600));
        scenario.faults.delay(creates(), random.u32(10..60), delay);
        scenario.load(0, 80).await;
    })
    .await;
}

/// Looks, marks and lists fail as well, also those that are done all the same.
#[tokio::test(flavor = "multi_thread")]
async fn every_sort_of_call_fails_at_first() {
    repeat("every sort of call fails at first", async |scenario, random| {
        for verb in ["create", "get", "list", "patch", "watch"] {
            scenario.faults.fail(Calls::of(verb, "jobs"), random.u32(1..6), Failure::Code(503));
            scenario.faults.fail(Calls::of(verb, "jobs"), random.u32(1..4), Failure::CodeAfter(504));
            scenario.faults.fail(Calls::of(verb, "jobs"), 1, Failure::BreakAfter);
        }
        scenario.load(0, 60).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_is_gone_for_a_while() {
    repeat("the API server refuses connections", async |scenario, random| {
        let scenario = &*scenario;
        tokio::join!(scenario.load(0, 80), async {
            scenario.until_jobs(random.usize(1..70)).await;
            scenario.faults.refuse_connections(true);
            scenario.load(80, 10).await;
            scenario.faults.refuse_connections(false);
        });
    })
    .await;
}
