//! Faults of a single NATS server under load: it is killed, frozen or restarted, a consumer is
//! deleted, or a stream is full.

use std::time::{Duration, Instant};

use dispatcher_tests::{Kubernetes, Nats};
use tokio::time::sleep;

use crate::scenario::{Scenario, repeat_on};
use dispatcher_tests::load_test::LoadTest;
use dispatcher_tests::test_env::TestEnv;

/// Starts a load test with its own NATS server, which has a short lame duck period.
async fn start() -> Result<LoadTest, String> {
    let namespace = Kubernetes::shared().await?.namespace().await;
    Ok(LoadTest::new(TestEnv::new(Nats::lame_duck().await, namespace).await).await)
}

impl Scenario {
    /// Publishes a request, waits for a status event of its Job and records the recovery time.
    pub(crate) async fn works_again(&self, what: &str, since: Instant) {
        let name = format!("wait-{:x}", fastrand::u64(..));
        self.until_works(&name).await;
        self.recovered(what, since);
        self.complete(&[&name]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nats_killed() {
    repeat_on("NATS is killed and restarted", start, async |scenario, random| {
        tokio::join!(scenario.load(0, 300), async {
            for round in 0..3 {
                scenario.until_jobs(round * 80 + random.usize(1..80)).await;
                scenario.env.nats.kill().await;
                scenario.env.nats.restart().await;
                scenario.works_again("NATS restart", Instant::now()).await;
            }
        });
        scenario.redeliver_now().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nats_restarted_gracefully() {
    repeat_on("NATS is restarted gracefully", start, async |scenario, random| {
        tokio::join!(scenario.load(0, 300), async {
            for round in 0..3 {
                scenario.until_jobs(round * 80 + random.usize(1..80)).await;
                scenario.env.nats.nodes[0].terminate().await;
                scenario.env.nats.restart().await;
                scenario.works_again("NATS restart", Instant::now()).await;
            }
        });
        scenario.redeliver_now().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nats_frozen() {
    repeat_on("NATS is frozen for 5 to 30 s", start, async |scenario, random| {
        tokio::join!(scenario.load(0, 200), async {
            scenario.until_jobs(random.usize(1..150)).await;
            scenario.env.nats.pause().await;
            // The duration of the fault.
            sleep(Duration::from_millis(random.u64(5_000..30_000))).await;
            scenario.env.nats.unpause().await;
            scenario.works_again("NATS resumed after a freeze", Instant::now()).await;
        });
        scenario.redeliver_now().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nats_enters_lame_duck_mode() {
    repeat_on("NATS enters lame duck mode and is restarted", start, async |scenario, random| {
        let server = &scenario.env.nats.nodes[0];
        tokio::join!(scenario.load(0, 200), async {
            scenario.until_jobs(random.usize(1..150)).await;
            server.lame_duck().await;
            server.ended().await;
            scenario.env.nats.restart().await;
            scenario.works_again("NATS restart", Instant::now()).await;
        });
        scenario.redeliver_now().await;
    })
    .await;
}

/// Publishes the same requests again after the deduplication window has expired. The dispatcher can
/// recognize them only by the existing Jobs and the messages in the streams.
#[tokio::test(flavor = "multi_thread")]
async fn requests_republished_after_a_restart() {
    repeat_on("requests are published again after a NATS restart", start, async |scenario, random| {
        let count = random.usize(10..60);
        tokio::join!(scenario.load(0, 60), async {
            scenario.until_jobs(random.usize(1..50)).await;
            scenario.env.nats.kill().await;
            scenario.env.nats.restart().await;
        });
        scenario.load(0, count).await;
        scenario.redeliver_now().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn status_stream_full() {
    repeat_on("JOB_STATUS is temporarily full", start, async |scenario, random| {
        scenario.request("wait-first", "ADDED").await;
        scenario.complete(&["wait-first"]).await;
        tokio::join!(scenario.load(0, 100), async {
            scenario.until_jobs(random.usize(1..80)).await;
            let open = scenario.env.fill_status_stream().await;
            scenario.until_not_ready("JOB_STATUS").await;
            let before = scenario.dispatcher.log().lines().count();
            let begin = Instant::now();
            // The duration of the fault.
            sleep(Duration::from_millis(random.u64(1_000..8_000))).await;
            let lines = scenario.dispatcher.log().lines().count() - before;
            assert!(lines < 600, "too many log lines: {lines} in {:?}", begin.elapsed());
            scenario.env.jetstream.update_stream(open).await.unwrap();
            scenario.works_again("JOB_STATUS limit raised", Instant::now()).await;
        });
        scenario.until_ready().await;
        scenario.redeliver_now().await;
    })
    .await;
}

/// The consumer holds the delivery state: without it, every unacknowledged request is redelivered.
#[tokio::test(flavor = "multi_thread")]
async fn consumer_deleted() {
    repeat_on("the consumer is deleted", start, async |scenario, random| {
        tokio::join!(scenario.load(0, 200), async {
            scenario.until_jobs(random.usize(1..150)).await;
            let jobs = scenario.env.jetstream.get_stream("JOBS").await.unwrap();
            jobs.delete_consumer("dispatcher-simple").await.unwrap();
            scenario.works_again("consumer deleted", Instant::now()).await;
        });
        scenario.until_ready().await;
        scenario.redeliver_now().await;
    })
    .await;
}

/// Publishes each request twice concurrently, from two connections, while the server is killed.
#[tokio::test(flavor = "multi_thread")]
async fn requests_published_twice_concurrently() {
    repeat_on("each request is published twice while NATS is killed", start, async |scenario, random| {
        tokio::join!(scenario.load(0, 100), scenario.load(0, 100), async {
            scenario.until_jobs(random.usize(1..80)).await;
            scenario.env.nats.kill().await;
            scenario.env.nats.restart().await;
            scenario.works_again("NATS restart", Instant::now()).await;
        });
        scenario.redeliver_now().await;
    })
    .await;
}
