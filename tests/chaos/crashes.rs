//! SIGKILL at each step of a request and of a Job: a breakpoint holds the dispatcher there, at a
//! random request under load.

use std::time::Instant;

use dispatcher_tests::proxy::{Breakpoint, Publish};
use local_cluster::faults::Calls;

use crate::scenario::{Scenario, repeat_behind_proxies};

/// The number of concurrent requests; one in twenty is invalid.
const REQUESTS: usize = 100;

/// Kills the dispatcher at the nth breakpoint that `hold` sets, and restarts it.
async fn killed(fault: &str, hold: fn(&Scenario, u32) -> Breakpoint) {
    killed_at_one_of(fault, 90, hold).await;
}

/// Like [`killed`], for a step that occurs this many times.
async fn killed_at_one_of(fault: &str, count: u32, hold: fn(&Scenario, u32) -> Breakpoint) {
    repeat_behind_proxies(fault, async |scenario, random| {
        kill(scenario, hold(scenario, random.u32(1..=count))).await;
    })
    .await;
}

async fn kill(scenario: &Scenario, held: Breakpoint) {
    tokio::join!(scenario.load(0, REQUESTS), async {
        held.reached().await;
        scenario.dispatcher.kill().await;
        // The held message is lost with the dispatcher.
        held.cut();
        let killed = Instant::now();
        scenario.redeliver_now().await;
        scenario.dispatcher.restart().await;
        scenario.until_works("after").await;
        scenario.recovered("dispatcher restart after a kill", killed);
    });
}

fn acks() -> Publish {
    Publish::to("$JS.ACK.JOBS.>").with("+ACK")
}

fn events(type_: &str) -> Publish {
    Publish::to("dispatcher.event.simple.*").with(&format!("Job-Event: {type_}\r\n"))
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_before_create() {
    let hold = |scenario: &Scenario, nth| scenario.api().hold_before(Calls::of("create", "jobs"), nth);
    killed("SIGKILL before the create is sent", hold).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_create() {
    let hold = |scenario: &Scenario, nth| scenario.api().hold_after(Calls::of("create", "jobs"), nth);
    killed("SIGKILL after the Job is created, before the answer", hold).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_before_added() {
    let hold = |scenario: &Scenario, nth| scenario.nats().hold_before(events("ADDED"), nth);
    killed("SIGKILL before `ADDED` is sent", hold).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_added() {
    let hold = |scenario: &Scenario, nth| scenario.nats().hold_after(events("ADDED"), nth);
    killed("SIGKILL after `ADDED` is stored, before its ack", hold).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_before_ack() {
    let hold = |scenario: &Scenario, nth| scenario.nats().hold_before(acks(), nth);
    killed("SIGKILL before the ack is sent", hold).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_ack() {
    let hold = |scenario: &Scenario, nth| scenario.nats().hold_after(acks(), nth);
    killed("SIGKILL after the ack has arrived, before its confirmation", hold).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_before_modified() {
    let hold = |scenario: &Scenario, nth| scenario.nats().hold_before(events("MODIFIED"), nth);
    killed("SIGKILL before `MODIFIED` is sent", hold).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_before_outcome() {
    let hold = |scenario: &Scenario, nth| scenario.nats().hold_before(events("OUTCOME"), nth);
    killed("SIGKILL before `OUTCOME` is sent", hold).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_outcome() {
    let hold = |scenario: &Scenario, nth| scenario.nats().hold_after(events("OUTCOME"), nth);
    killed("SIGKILL after `OUTCOME` is stored, before its ack", hold).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_before_retirement() {
    let hold = |scenario: &Scenario, nth| scenario.api().hold_before(Calls::of("patch", "jobs"), nth);
    killed("SIGKILL before the patch that retires the Job", hold).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_retirement() {
    let hold = |scenario: &Scenario, nth| scenario.api().hold_after(Calls::of("patch", "jobs"), nth);
    killed("SIGKILL after the Job is retired, before the answer", hold).await;
}

/// The dead letter is stored, but the request is not terminated. One request in twenty is rejected.
#[tokio::test(flavor = "multi_thread")]
async fn killed_after_dead_letter() {
    let hold =
        |scenario: &Scenario, nth| scenario.nats().hold_after(Publish::to("jobs.simple.rejected.*"), nth);
    killed_at_one_of("SIGKILL after a dead letter is stored, before its ack", 5, hold).await;
}
