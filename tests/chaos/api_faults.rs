//! The API server refuses, breaks off, is late, is silent, or says that nothing was done where it was.

use std::time::{Duration, Instant};

use fastrand::Rng;
use local_cluster::faults::{Behaviour, Calls, Failure};
use tokio::time::sleep;

use crate::scenario::{Scenario, repeat_behind_proxies};

/// How many requests are published at once; one in twenty is bad.
const REQUESTS: usize = 100;

/// Longer than the dispatcher waits for a word of a watch (28 s).
const LONGER_THAN_SILENCE: Duration = Duration::from_secs(30);

/// So many seconds: the fault itself lasts that long.
async fn some_seconds(random: &mut Rng) {
    sleep(Duration::from_millis(random.u64(2_000..6_000))).await;
}

/// From a random moment under load on, for some seconds.
async fn for_some_seconds(scenario: &Scenario, random: &mut Rng, begin: impl FnOnce(&Scenario)) {
    tokio::join!(scenario.load(0, REQUESTS), async {
        scenario.until_jobs(random.usize(0..80)).await;
        begin(scenario);
        some_seconds(random).await;
        scenario.api().faults.clear();
        let over = Instant::now();
        scenario.until_works("after").await;
        scenario.recovered("API server as before", over);
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
async fn storm_of_429() {
    storm("every call is answered with 429 for some seconds", 429).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn storm_of_503() {
    storm("every call is answered with 503 for some seconds", 503).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_to_the_api_server_are_refused() {
    repeat_behind_proxies("connections to the API server break and are refused", async |scenario, random| {
        for_some_seconds(scenario, random, |scenario| scenario.api().faults.refuse_connections(true)).await;
    })
    .await;
}

/// Calls are taken and never answered.
#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_is_silent() {
    repeat_behind_proxies("the API server takes calls and answers none", async |scenario, random| {
        let delay = |scenario: &Scenario| {
            scenario.api().faults.delay(Calls::all(), u32::MAX, Duration::from_secs(3600));
        };
        for_some_seconds(scenario, random, delay).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_api_server() {
    repeat_behind_proxies("every call takes up to two seconds longer", async |scenario, random| {
        let longer = Duration::from_millis(random.u64(200..2_000));
        scenario.load(0, random.usize(1..REQUESTS)).await;
        scenario.api().faults.delay(Calls::all(), u32::MAX, longer);
        scenario.load(REQUESTS, 50).await;
        scenario.until_works("slowly").await;
        scenario.api().faults.clear();
    })
    .await;
}

/// The create was done and its answer says otherwise, again and again.
async fn done_and_not_told(fault: &str, failure: Failure) {
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
async fn a_create_is_done_and_answered_with_504() {
    done_and_not_told("a create is done and answered with 504", Failure::CodeAfter(504)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_is_done_and_its_connection_breaks() {
    done_and_not_told("a create is done and its connection breaks", Failure::BreakAfter).await;
}

/// The mark was patched on and the answer says otherwise.
#[tokio::test(flavor = "multi_thread")]
async fn a_patch_is_done_and_answered_with_504() {
    repeat_behind_proxies("mark and TTL are patched on and the answer is 504", async |scenario, random| {
        tokio::join!(scenario.load(0, REQUESTS), async {
            scenario.until_jobs(random.usize(0..60)).await;
            let times = random.u32(1..20);
            scenario.api().faults.fail(Calls::of("patch", "jobs"), times, Failure::CodeAfter(504));
        });
    })
    .await;
}

/// The connection stays and nothing comes, neither on it nor on the next one.
async fn half_open(fault: &str, watches: fn() -> Calls) {
    repeat_behind_proxies(fault, async |scenario, random| {
        tokio::join!(scenario.load(0, REQUESTS), async {
            scenario.until_jobs(random.usize(0..80)).await;
            scenario.api().faults.set_behaviour(watches(), Behaviour::Stall);
            // The fault itself lasts this long.
            sleep(LONGER_THAN_SILENCE + Duration::from_millis(random.u64(0..2_000))).await;
            scenario.api().faults.reset_behaviours();
            let over = Instant::now();
            scenario.request("after", "OUTCOME").await;
            scenario.recovered("events after a half-open watch", over);
        });
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_open_watch() {
    half_open("the watch of Jobs is half-open for half a minute", || Calls::of("watch", "jobs")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_is_half_open_for_a_moment() {
    repeat_behind_proxies("every watch is half-open for some seconds", async |scenario, random| {
        let stall = |scenario: &Scenario| {
            scenario.api().faults.set_behaviour(Calls::of("watch", "jobs"), Behaviour::Stall)
        };
        for_some_seconds(scenario, random, stall).await;
    })
    .await;
}
