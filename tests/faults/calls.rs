//! Calls fail, before or after they are done, are late, or break.

use std::time::Duration;

use fastrand::Rng;
use local_cluster::faults::{Calls, Failure};

use crate::stage::{Stage, repeat};

fn creates() -> Calls {
    Calls::of("create", "jobs")
}

/// Requests while the next creates meet these failures, several of each.
async fn load_while_creates_fail(stage: &Stage, random: &mut Rng, failures: &[Failure]) {
    for failure in failures {
        stage.faults.fail(creates(), random.u32(1..16), *failure);
    }
    stage.load(0, random.usize(60..100)).await;
    stage.until_struck().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn creates_are_refused_for_a_while() {
    let failures = [429, 500, 503, 504].map(Failure::Code);
    repeat("creates are answered with 429, 500, 503, 504", async |stage, random| {
        load_while_creates_fail(stage, random, &failures).await;
    })
    .await;
}

/// Each of them is there all the same, and is found when its request comes again.
#[tokio::test(flavor = "multi_thread")]
async fn creates_are_done_and_answered_with_an_error() {
    let failures = [504, 500, 503].map(Failure::CodeAfter);
    repeat("creates are done and answered with 504, 500, 503", async |stage, random| {
        load_while_creates_fail(stage, random, &failures).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_connection_breaks_before_or_after_a_create_is_done() {
    let failures = [Failure::Break, Failure::BreakAfter];
    repeat("connections break before or after a create is done", async |stage, random| {
        load_while_creates_fail(stage, random, &failures).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn creates_are_late() {
    repeat("creates are late", async |stage, random| {
        let delay = Duration::from_millis(random.u64(10..600));
        stage.faults.delay(creates(), random.u32(10..60), delay);
        stage.load(0, 80).await;
    })
    .await;
}

/// Looks, marks and lists fail as well, also those that are done all the same.
#[tokio::test(flavor = "multi_thread")]
async fn every_sort_of_call_fails_at_first() {
    repeat("every sort of call fails at first", async |stage, random| {
        for verb in ["create", "get", "list", "patch", "watch"] {
            stage.faults.fail(Calls::of(verb, "jobs"), random.u32(1..6), Failure::Code(503));
            stage.faults.fail(Calls::of(verb, "jobs"), random.u32(1..4), Failure::CodeAfter(504));
            stage.faults.fail(Calls::of(verb, "jobs"), 1, Failure::BreakAfter);
        }
        stage.load(0, 60).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_is_gone_for_a_while() {
    repeat("the API server refuses connections", async |stage, random| {
        let stage = &*stage;
        tokio::join!(stage.load(0, 80), async {
            stage.until_jobs(random.usize(1..70)).await;
            stage.faults.refuse_connections(true);
            stage.load(80, 10).await;
            stage.faults.refuse_connections(false);
        });
    })
    .await;
}
