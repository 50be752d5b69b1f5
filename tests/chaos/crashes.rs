//! The dispatcher is killed (SIGKILL) at each step of a request's way, and of a Job's: a breakpoint holds it there, at
//! whichever request the seed says, under load.

use std::time::Instant;

use dispatcher_tests::proxy::{Breakpoint, Publish};
use local_cluster::faults::Calls;

use crate::scenario::{Scenario, repeat_behind_proxies};

/// How many requests are published at once; one in twenty is bad.
const REQUESTS: usize = 100;

/// Kills it where `hold` holds it, at the nth request, and starts it again.
async fn killed(fault: &str, hold: fn(&Scenario, u32) -> Breakpoint) {
    killed_among(fault, 90, hold).await;
}

/// The same where so many come by.
async fn killed_among(fault: &str, count: u32, hold: fn(&Scenario, u32) -> Breakpoint) {
    repeat_behind_proxies(fault, async |scenario, random| {
        kill(scenario, hold(scenario, random.u32(1..=count))).await
    })
    .await;
}

async fn kill(scenario: &Scenario, held: Breakpoint) {
    tokio::join!(scenario.load(0, REQUESTS), async {
        held.reached().await;
        scenario.dispatcher.kill().await;
        // What it was about to send is lost with it.
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
async fn killed_when_a_request_is_pulled() {
    let hold = |scenario: &Scenario, nth| scenario.api().hold_before(Calls::of("create", "jobs"), nth);
    killed("kill -9 before the create is sent", hold).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_when_the_job_is_created() {
    let hold = |scenario: &Scenario, nth| scenario.api().hold_after(Calls::of("create", "jobs"), nth);
    killed("kill -9 when the Job is created, before the answer", hold).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_when_added_is_on_its_way() {
    let hold = |scenario: &Scenario, nth| scenario.nats().hold_before(events("ADDED"), nth);
    killed("kill -9 before `ADDED` is sent", hold).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_when_added_is_stored() {
    let hold = |scenario: &Scenario, nth| scenario.nats().hold_after(events("ADDED"), nth);
    killed("kill -9 when `ADDED` is stored, before the answer", hold).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_before_the_ack() {
    let hold = |scenario: &Scenario, nth| scenario.nats().hold_before(acks(), nth);
    killed("kill -9 before the ack is sent", hold).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_when_the_ack_is_sent() {
    let hold = |scenario: &Scenario, nth| scenario.nats().hold_after(acks(), nth);
    killed("kill -9 when the ack has arrived, before the answer", hold).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_before_a_change_is_told() {
    let hold = |scenario: &Scenario, nth| scenario.nats().hold_before(events("MODIFIED"), nth);
    killed("kill -9 before `MODIFIED` is sent", hold).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_before_the_outcome() {
    let hold = |scenario: &Scenario, nth| scenario.nats().hold_before(events("OUTCOME"), nth);
    killed("kill -9 before `OUTCOME` is sent", hold).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_when_the_outcome_is_stored() {
    let hold = |scenario: &Scenario, nth| scenario.nats().hold_after(events("OUTCOME"), nth);
    killed("kill -9 when `OUTCOME` is stored, before the answer", hold).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_before_the_ttl() {
    let hold = |scenario: &Scenario, nth| scenario.api().hold_before(Calls::of("patch", "jobs"), nth);
    killed("kill -9 before mark and TTL are patched on", hold).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_the_ttl() {
    let hold = |scenario: &Scenario, nth| scenario.api().hold_after(Calls::of("patch", "jobs"), nth);
    killed("kill -9 when mark and TTL are patched on, before the answer", hold).await;
}

/// The copy is stored, and the request is not ended. One request in twenty is rejected.
#[tokio::test(flavor = "multi_thread")]
async fn killed_when_a_rejection_is_stored() {
    let hold =
        |scenario: &Scenario, nth| scenario.nats().hold_after(Publish::to("jobs.simple.rejected"), nth);
    killed_among("kill -9 when a rejection is stored, before the answer", 5, hold).await;
}
