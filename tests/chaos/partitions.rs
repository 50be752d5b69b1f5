//! The network between the dispatcher and NATS or the API server is cut, half-open or slow.

use std::ops::Range;
use std::time::{Duration, Instant};

use fastrand::Rng;
use tokio::time::sleep;

use crate::scenario::{Scenario, repeat_behind_proxies};

/// The number of concurrent requests; one in twenty is invalid.
const REQUESTS: usize = 100;

/// Starts a fault at a random moment and ends it after a random duration.
async fn inject(
    scenario: &Scenario,
    random: &mut Rng,
    milliseconds: Range<u64>,
    begin: impl FnOnce(&Scenario),
) {
    scenario.until_jobs(random.usize(0..80)).await;
    begin(scenario);
    sleep(Duration::from_millis(random.u64(milliseconds))).await;
    scenario.api().faults.clear();
    scenario.nats().heal();
}

/// Like [`inject`], under load, and waits for the recovery.
async fn inject_under_load(scenario: &Scenario, random: &mut Rng, begin: impl FnOnce(&Scenario)) {
    tokio::join!(scenario.load(0, REQUESTS), async {
        inject(scenario, random, 500..8_000, begin).await;
        let healed = Instant::now();
        scenario.until_works("after").await;
        scenario.recovered("after a partition", healed);
    });
    scenario.redeliver_now().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partition_from_nats() {
    repeat_behind_proxies("partition from NATS", async |scenario, random| {
        inject_under_load(scenario, random, |scenario| scenario.nats().partition()).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partition_from_api_server() {
    repeat_behind_proxies("partition from the API server", async |scenario, random| {
        inject_under_load(scenario, random, |scenario| scenario.api().faults.refuse_connections(true)).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partition_from_nats_and_api_server() {
    repeat_behind_proxies("partition from NATS and the API server", async |scenario, random| {
        let both = |scenario: &Scenario| {
            scenario.nats().partition();
            scenario.api().faults.refuse_connections(true);
        };
        inject_under_load(scenario, random, both).await;
    })
    .await;
}

/// Breaks connections repeatedly, each time for a moment, so that messages in flight are lost.
#[tokio::test(flavor = "multi_thread")]
async fn connections_to_nats_break_repeatedly() {
    repeat_behind_proxies("connections to NATS break repeatedly", async |scenario, random| {
        tokio::join!(scenario.load(0, REQUESTS), async {
            for jobs in [10, 30, 50, 70] {
                scenario.until_jobs(jobs + random.usize(0..20)).await;
                scenario.nats().partition();
                scenario.nats().heal();
            }
        });
        scenario.redeliver_now().await;
    })
    .await;
}

/// The durations are below and above the timeouts for an answer (5 s) and for two pings (20 s).
#[tokio::test(flavor = "multi_thread")]
async fn nats_half_open() {
    repeat_behind_proxies("connections to NATS are half-open", async |scenario, random| {
        tokio::join!(scenario.load(0, REQUESTS), async {
            inject(scenario, random, 1_000..25_000, |scenario| scenario.nats().half_open()).await;
            // What the server has sent on the abandoned connection would be redelivered only after
            // `ack_wait`.
            scenario.redeliver_now().await;
            scenario.until_works("after").await;
        });
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nats_slow() {
    repeat_behind_proxies(
        "connections to NATS are slow: delay and low bandwidth",
        async |scenario, random| {
            scenario.load(0, random.usize(1..REQUESTS)).await;
            let delay = Duration::from_millis(random.u64(1..50));
            scenario.nats().slow(delay, random.u32(100_000..500_000));
            scenario.load(REQUESTS, 30).await;
            scenario.until_works("slowly").await;
            scenario.nats().heal();
        },
    )
    .await;
}
