//! The network between the dispatcher and its two systems: cut, half-open, slow; on either side, or on both.

use std::ops::Range;
use std::time::{Duration, Instant};

use fastrand::Rng;
use tokio::time::sleep;

use crate::stage::{Stage, repeat_behind_proxies};

/// How many requests are published at once; one in twenty is bad.
const REQUESTS: usize = 100;

/// From a random moment on, for so many milliseconds: the fault itself lasts that long.
async fn strike(stage: &Stage, random: &mut Rng, milliseconds: Range<u64>, begin: impl FnOnce(&Stage)) {
    stage.until_jobs(random.usize(0..80)).await;
    begin(stage);
    sleep(Duration::from_millis(random.u64(milliseconds))).await;
    stage.api().faults.clear();
    stage.nats().heal();
}

/// The same under load, and what comes after it.
async fn cut(stage: &Stage, random: &mut Rng, begin: impl FnOnce(&Stage)) {
    tokio::join!(stage.load(0, REQUESTS), async {
        strike(stage, random, 500..8_000, begin).await;
        let healed = Instant::now();
        stage.until_works("after").await;
        stage.recovered("after a partition", healed);
    });
    stage.redeliver_now().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partition_from_nats() {
    repeat_behind_proxies("partition from NATS", async |stage, random| {
        cut(stage, random, |stage| stage.nats().partition()).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partition_from_kubernetes() {
    repeat_behind_proxies("partition from the API server", async |stage, random| {
        cut(stage, random, |stage| stage.api().faults.refuse_connections(true)).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partition_from_both() {
    repeat_behind_proxies("partition from NATS and from the API server", async |stage, random| {
        let both = |stage: &Stage| {
            stage.nats().partition();
            stage.api().faults.refuse_connections(true);
        };
        cut(stage, random, both).await;
    })
    .await;
}

/// Again and again, each time for a moment: whatever was on its way is lost.
#[tokio::test(flavor = "multi_thread")]
async fn connections_to_nats_break_again_and_again() {
    repeat_behind_proxies("connections to NATS break again and again", async |stage, random| {
        tokio::join!(stage.load(0, REQUESTS), async {
            for jobs in [10, 30, 50, 70] {
                stage.until_jobs(jobs + random.usize(0..20)).await;
                stage.nats().partition();
                stage.nats().heal();
            }
        });
        stage.redeliver_now().await;
    })
    .await;
}

/// Shorter and longer than what is waited for an answer (5 s) and for two pings (20 s).
#[tokio::test(flavor = "multi_thread")]
async fn half_open_nats() {
    repeat_behind_proxies("NATS is half-open: connections stay and nothing passes", async |stage, random| {
        tokio::join!(stage.load(0, REQUESTS), async {
            strike(stage, random, 1_000..25_000, |stage| stage.nats().half_open()).await;
            // What the server had sent to the connection that is given up would else come after `ack_wait`.
            stage.redeliver_now().await;
            stage.until_works("after").await;
        });
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_nats() {
    repeat_behind_proxies("NATS is slow: delays and few bytes in a second", async |stage, random| {
        stage.load(0, random.usize(1..REQUESTS)).await;
        let delay = Duration::from_millis(random.u64(1..50));
        stage.nats().slow(delay, random.u32(100_000..500_000));
        stage.load(REQUESTS, 30).await;
        stage.until_works("slowly").await;
        stage.nats().heal();
    })
    .await;
}
