//! The network between the dispatcher and its two systems: cut, half-open, slow; on either side, or on both.

use std::ops::Range;
use std::time::{Duration, Instant};

use fastrand::Rng;
use tokio::time::sleep;

use crate::scenario::{Scenario, repeat_behind_proxies};

/// How many requests are published at once; one in twenty is bad.
const REQUESTS: usize = 100;

/// From a random moment on, for so many milliseconds: the fault itself lasts that long.
async fn strike(
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

/// The same under load, and what comes after it.
async fn cut(scenario: &Scenario, random: &mut Rng, begin: impl FnOnce(&Scenario)) {
    tokio::join!(scenario.load(0, REQUESTS), async {
        strike(scenario, random, 500..8_000, begin).await;
        let healed = Instant::now();
        scenario.until_works("after").await;
        scenario.recovered("after a partition", healed);
    });
    scenario.redeliver_now().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partition_from_nats() {
    repeat_behind_proxies("partition from NATS", async |scenario, random| {
        cut(scenario, random, |scenario| scenario.nats().partition()).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partition_from_kubernetes() {
    repeat_behind_proxies("partition from the API server", async |scenario, random| {
        cut(scenario, random, |scenario| scenario.api().faults.refuse_connections(true)).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partition_from_both() {
    repeat_behind_proxies("partition from NATS and from the API server", async |scenario, random| {
        let both = |scenario: &Scenario| {
            scenario.nats().partition();
            scenario.api().faults.refuse_connections(true);
        };
        cut(scenario, random, both).await;
    })
    .await;
}

/// Again and again, each time for a moment: whatever was on its way is lost.
#[tokio::test(flavor = "multi_thread")]
async fn connections_to_nats_break_again_and_again() {
    repeat_behind_proxies("connections to NATS break again and again", async |scenario, random| {
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

/// Shorter and longer than what is waited for an answer (5 s) and for two pings (20 s).
#[tokio::test(flavor = "multi_thread")]
async fn half_open_nats() {
    repeat_behind_proxies(
        "NATS is half-open: connections stay and nothing passes",
        async |scenario, random| {
            tokio::join!(scenario.load(0, REQUESTS), async {
                strike(scenario, random, 1_000..25_000, |scenario| scenario.nats().half_open()).await;
                // What the server had sent to the connection that is given up would else come after `ack_wait`.
                scenario.redeliver_now().await;
                scenario.until_works("after").await;
            });
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_nats() {
    repeat_behind_proxies("NATS is slow: delays and few bytes in a second", async |scenario, random| {
        scenario.load(0, random.usize(1..REQUESTS)).await;
        let delay = Duration::from_millis(random.u64(1..50));
        scenario.nats().slow(delay, random.u32(100_000..500_000));
        scenario.load(REQUESTS, 30).await;
        scenario.until_works("slowly").await;
        scenario.nats().heal();
    })
    .await;
}
