//! Calls of the API server fail, before or after they take effect, are slow, or break.

use std::time::Duration;

use fastrand::Rng;
use local_cluster::faults::{Calls, Failure};

use crate::scenario::{Scenario, repeat};

fn creates() -> Calls {
    Calls::of("create", "jobs")
}

/// Publishes requests while the next creates fail in these ways.
async fn load_while_creates_fail(scenario: &Scenario, random: &mut Rng, failures: &[Failure]) {
    for failure in failures {
        scenario.faults.fail(creates(), random.u32(1..16), *failure);
    }
    scenario.load(0, random.usize(60..100)).await;
    scenario.until_all_injected().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn creates_return_retryable_errors() {
    let failures = [429, 500, 503, 504].map(Failure::Code);
    repeat("creates return 429, 500, 503, 504", async |scenario, random| {
        load_while_creates_fail(scenario, random, &failures).await;
    })
    .await;
}

/// The redelivery of each request finds its Job.
#[tokio::test(flavor = "multi_thread")]
async fn creates_succeed_but_return_errors() {
    let failures = [504, 500, 503].map(Failure::CodeAfter);
    repeat("creates succeed but return 504, 500, 503", async |scenario, random| {
        load_while_creates_fail(scenario, random, &failures).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connection_breaks_during_creates() {
    let failures = [Failure::Break, Failure::BreakAfter];
    repeat("connections break before or after a create is done", async |scenario, random| {
        load_while_creates_fail(scenario, random, &failures).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn creates_are_slow() {
    repeat("creates are slow", async |scenario, random| {
        let delay = Duration::from_millis(random.u64(10..600));
        scenario.faults.delay(creates(), random.u32(10..60), delay);
        scenario.load(0, 80).await;
    })
    .await;
}

/// Includes gets, patches and lists, and calls that take effect.
#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_call_fails_at_first() {
    repeat("every kind of call fails at first", async |scenario, random| {
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
async fn api_server_refuses_connections() {
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
