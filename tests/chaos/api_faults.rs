//! The API server returns errors, breaks connections, is slow, stalls, or fails calls that took
//! effect.

use std::time::{Duration, Instant};

use fastrand::Rng;
use local_cluster::faults::{Behaviour, Calls, Failure};
use tokio::time::sleep;

use crate::scenario::{Scenario, repeat_behind_proxies};

/// The number of concurrent requests; one in twenty is invalid.
const REQUESTS: usize = 100;

/// Longer than the dispatcher's timeout for a silent watch (28 s).
const LONGER_THAN_WATCH_TIMEOUT: Duration = Duration::from_secs(30);

/// A random duration of some seconds for a fault.
async fn some_seconds(random: &mut Rng) {
    sleep(Duration::from_millis(random.u64(2_000..6_000))).await;
}

/// Starts a fault at a random moment under load and ends it after some seconds.
async fn for_some_seconds(scenario: &Scenario, random: &mut Rng, begin: impl FnOnce(&Scenario)) {
    tokio::join!(scenario.load(0, REQUESTS), async {
        scenario.until_jobs(random.usize(0..80)).await;
        begin(scenario);
        some_seconds(random).await;
        scenario.api().faults.clear();
        let over = Instant::now();
        scenario.until_works("after").await;
        scenario.recovered("API server faults removed", over);
    });
}

async fn storm(fault: &str, code: u16) {
    repeat_behind_proxies(fault, async |scenario, random| {
        let fail =
            |scenario: &Scenario| scenario.api().faults.fail(Calls::all(), u32::MAX, Failure::Code(code));
        for_some_seconds(scenario, random, fail).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_returns_429() {
    storm("every call returns 429 for some seconds", 429).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_returns_503() {
    storm("every call returns 503 for some seconds", 503).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn api_server_refuses_and_breaks_connections() {
    repeat_behind_proxies("connections to the API server break and are refused", async |scenario, random| {
        for_some_seconds(scenario, random, |scenario| scenario.api().faults.refuse_connections(true)).await;
    })
    .await;
}

/// Accepts calls and never answers.
#[tokio::test(flavor = "multi_thread")]
async fn api_server_never_answers() {
    repeat_behind_proxies("the API server accepts calls but never answers", async |scenario, random| {
        let delay = |scenario: &Scenario| {
            scenario.api().faults.delay(Calls::all(), u32::MAX, Duration::from_secs(3600));
        };
        for_some_seconds(scenario, random, delay).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn api_server_slow() {
    repeat_behind_proxies("every call takes up to 2 s longer", async |scenario, random| {
        let longer = Duration::from_millis(random.u64(200..2_000));
        scenario.load(0, random.usize(1..REQUESTS)).await;
        scenario.api().faults.delay(Calls::all(), u32::MAX, longer);
        scenario.load(REQUESTS, 50).await;
        scenario.until_works("slowly").await;
        scenario.api().faults.clear();
    })
    .await;
}

/// Creates take effect, but their answers say otherwise, repeatedly.
async fn create_succeeds_but_fails_with(fault: &str, failure: Failure) {
    repeat_behind_proxies(fault, async |scenario, random| {
        let creates = || Calls::of("create", "jobs");
        tokio::join!(scenario.load(0, REQUESTS), async {
            for _ in 0..3 {
                scenario.until_jobs(random.usize(0..60)).await;
                scenario.api().faults.fail(creates(), random.u32(1..20), failure);
            }
        });
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn create_succeeds_but_returns_504() {
    create_succeeds_but_fails_with("a create succeeds but returns 504", Failure::CodeAfter(504)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn create_succeeds_but_the_connection_breaks() {
    create_succeeds_but_fails_with("a create succeeds but its connection breaks", Failure::BreakAfter).await;
}

/// The patch takes effect, but the answer says otherwise.
#[tokio::test(flavor = "multi_thread")]
async fn retirement_succeeds_but_returns_504() {
    repeat_behind_proxies(
        "the patch that retires a Job succeeds but returns 504",
        async |scenario, random| {
            tokio::join!(scenario.load(0, REQUESTS), async {
                scenario.until_jobs(random.usize(0..60)).await;
                let times = random.u32(1..20);
                scenario.api().faults.fail(Calls::of("patch", "jobs"), times, Failure::CodeAfter(504));
            });
        },
    )
    .await;
}

/// The connection stays open but delivers nothing, and neither does the next one.
async fn half_open(fault: &str, watches: fn() -> Calls) {
    repeat_behind_proxies(fault, async |scenario, random| {
        tokio::join!(scenario.load(0, REQUESTS), async {
            scenario.until_jobs(random.usize(0..80)).await;
            scenario.api().faults.set_behaviour(watches(), Behaviour::Stall);
            // The duration of the fault.
            sleep(LONGER_THAN_WATCH_TIMEOUT + Duration::from_millis(random.u64(0..2_000))).await;
            scenario.api().faults.reset_behaviours();
            let over = Instant::now();
            scenario.request("after", "OUTCOME").await;
            scenario.recovered("events after a half-open watch", over);
        });
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn job_watch_half_open() {
    half_open("the watch of Jobs is half-open for 30 s", || Calls::of("watch", "jobs")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_half_open_briefly() {
    repeat_behind_proxies("every watch is half-open for some seconds", async |scenario, random| {
        let stall = |scenario: &Scenario| {
            scenario.api().faults.set_behaviour(Calls::of("watch", "jobs"), Behaviour::Stall);
        };
        for_some_seconds(scenario, random, stall).await;
    })
    .await;
}
