//! One NATS server that dies, sleeps, goes, forgets and is full, under load.

use std::time::{Duration, Instant};

use dispatcher_tests::{Kubernetes, Nats};
use tokio::time::sleep;

use crate::stage::{Stage, repeat_on};
use dispatcher_tests::load_test::LoadTest;
use dispatcher_tests::test_env::TestEnv;

/// The server as a plain process.
async fn start() -> Result<LoadTest, String> {
    let namespace = Kubernetes::shared().await?.namespace().await;
    Ok(LoadTest::new(TestEnv::new(Nats::lame_duck().await, namespace).await).await)
}

impl Stage {
    /// Has one request made now, waits for its Job's `ADDED`, and notes how long that took.
    pub(crate) async fn works_again(&self, what: &str, since: Instant) {
        let name = format!("wait-{:x}", fastrand::u64(..));
        self.until_works(&name).await;
        self.recovered(what, since);
        self.complete(&[&name]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nats_is_killed_and_restarted() {
    repeat_on("NATS is killed and restarted", start, async |stage, random| {
        tokio::join!(stage.load(0, 300), async {
            for round in 0..3 {
                stage.until_jobs(round * 80 + random.usize(1..80)).await;
                stage.env.nats.kill().await;
                stage.env.nats.restart().await;
                stage.works_again("NATS restart", Instant::now()).await;
            }
        });
        stage.redeliver_now().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nats_is_restarted_in_order() {
    repeat_on("NATS is restarted in order", start, async |stage, random| {
        tokio::join!(stage.load(0, 300), async {
            for round in 0..3 {
                stage.until_jobs(round * 80 + random.usize(1..80)).await;
                stage.env.nats.nodes[0].terminate().await;
                stage.env.nats.restart().await;
                stage.works_again("NATS restart", Instant::now()).await;
            }
        });
        stage.redeliver_now().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nats_is_frozen() {
    repeat_on("NATS is frozen for 5 to 30 s", start, async |stage, random| {
        tokio::join!(stage.load(0, 200), async {
            stage.until_jobs(random.usize(1..150)).await;
            stage.env.nats.pause().await;
            // The fault itself lasts this long.
            sleep(Duration::from_millis(random.u64(5_000..30_000))).await;
            stage.env.nats.unpause().await;
            stage.works_again("NATS goes on after a freeze", Instant::now()).await;
        });
        stage.redeliver_now().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nats_leaves_in_lame_duck_mode() {
    repeat_on("NATS leaves in lame duck mode and comes back", start, async |stage, random| {
        let server = &stage.env.nats.nodes[0];
        tokio::join!(stage.load(0, 200), async {
            stage.until_jobs(random.usize(1..150)).await;
            server.lame_duck().await;
            server.ended().await;
            stage.env.nats.restart().await;
            stage.works_again("NATS restart", Instant::now()).await;
        });
        stage.redeliver_now().await;
    })
    .await;
}

/// The deduplication window is long over: only what the Jobs and the streams tell makes them one request.
#[tokio::test(flavor = "multi_thread")]
async fn requests_are_published_again_after_a_restart() {
    repeat_on("requests are published again after a NATS restart", start, async |stage, random| {
        let count = random.usize(10..60);
        tokio::join!(stage.load(0, 60), async {
            stage.until_jobs(random.usize(1..50)).await;
            stage.env.nats.kill().await;
            stage.env.nats.restart().await;
        });
        stage.load(0, count).await;
        stage.redeliver_now().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_stream_is_full_for_a_while() {
    repeat_on("JOB_STATUS is full for a while", start, async |stage, random| {
        stage.request("wait-first", "ADDED").await;
        stage.complete(&["wait-first"]).await;
        tokio::join!(stage.load(0, 100), async {
            stage.until_jobs(random.usize(1..80)).await;
            let open = stage.env.fill_status_stream().await;
            stage.until_not_ready("JOB_STATUS").await;
            let before = stage.dispatcher.log().lines().count();
            let begun = Instant::now();
            // The fault itself lasts this long.
            sleep(Duration::from_millis(random.u64(1_000..8_000))).await;
            let lines = stage.dispatcher.log().lines().count() - before;
            assert!(lines < 600, "no flood of log lines: {lines} in {:?}", begun.elapsed());
            stage.env.jetstream.update_stream(open).await.unwrap();
            stage.works_again("JOB_STATUS has room again", Instant::now()).await;
        });
        stage.until_ready().await;
        stage.redeliver_now().await;
    })
    .await;
}

/// It holds what is delivered and not acknowledged: without it, all of that is delivered again.
#[tokio::test(flavor = "multi_thread")]
async fn the_consumer_is_deleted() {
    repeat_on("the consumer is deleted", start, async |stage, random| {
        tokio::join!(stage.load(0, 200), async {
            stage.until_jobs(random.usize(1..150)).await;
            let jobs = stage.env.jetstream.get_stream("JOBS").await.unwrap();
            jobs.delete_consumer("dispatcher-simple").await.unwrap();
            stage.works_again("the consumer was deleted", Instant::now()).await;
        });
        stage.until_ready().await;
        stage.redeliver_now().await;
    })
    .await;
}

/// Each publish of a request twice at once, from two connections, while the server is killed.
#[tokio::test(flavor = "multi_thread")]
async fn requests_are_published_twice_at_once() {
    repeat_on("each request is published twice while NATS is killed", start, async |stage, random| {
        tokio::join!(stage.load(0, 100), stage.load(0, 100), async {
            stage.until_jobs(random.usize(1..80)).await;
            stage.env.nats.kill().await;
            stage.env.nats.restart().await;
            stage.works_again("NATS restart", Instant::now()).await;
        });
        stage.redeliver_now().await;
    })
    .await;
}
