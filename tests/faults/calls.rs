//! Calls fail, before or after they are done, are late, or break.

use std::time::Duration;

use local_cluster::faults::{Calls, Failure};

use crate::stage::Stage;

fn creates() -> Calls {
    Calls::of("create", "jobs")
}

/// Requests while the next creates meet these failures, several of each.
async fn load_while_creates_fail(what: &str, failures: &[Failure]) {
    let stage = Stage::start().await;
    for failure in failures {
        stage.faults.fail(creates(), 8, *failure);
    }
    stage.load(0, 80).await;
    stage.until_struck().await;
    stage.finish(what).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn creates_are_refused_for_a_while() {
    let failures = [429, 500, 503, 504].map(Failure::Code);
    load_while_creates_fail("creates are refused", &failures).await;
}

/// Each of them is there all the same, and is found when its request comes again.
#[tokio::test(flavor = "multi_thread")]
async fn creates_are_done_and_answered_with_an_error() {
    let failures = [504, 500, 503].map(Failure::CodeAfter);
    load_while_creates_fail("creates are done and answered with an error", &failures).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_connection_breaks_before_or_after_a_create_is_done() {
    let failures = [Failure::Break, Failure::BreakAfter];
    load_while_creates_fail("connections break", &failures).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn creates_are_late() {
    let stage = Stage::start().await;
    stage.faults.delay(creates(), 60, Duration::from_millis(300));
    stage.load(0, 80).await;
    stage.finish("creates are late").await;
}

/// Looks, marks and lists fail as well, also those that are done all the same.
#[tokio::test(flavor = "multi_thread")]
async fn every_sort_of_call_fails_at_first() {
    let stage = Stage::start().await;
    for verb in ["create", "get", "list", "patch", "watch"] {
        stage.faults.fail(Calls::of(verb, "jobs"), 4, Failure::Code(503));
        stage.faults.fail(Calls::of(verb, "jobs"), 2, Failure::CodeAfter(504));
        stage.faults.fail(Calls::of(verb, "jobs"), 1, Failure::BreakAfter);
    }
    stage.load(0, 60).await;
    stage.finish("every sort of call fails").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_is_gone_for_a_while() {
    let stage = Stage::start().await;
    tokio::join!(stage.load(0, 80), async {
        stage.until_jobs(10).await;
        stage.faults.refuse_connections(true);
        stage.load(80, 10).await;
        stage.faults.refuse_connections(false);
    });
    stage.finish("the API server is gone").await;
}
