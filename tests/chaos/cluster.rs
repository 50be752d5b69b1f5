//! Three NATS servers, streams with three replicas: leaders die, step down and freeze, servers go and come back.

use std::time::{Duration, Instant};

use dispatcher_tests::nats::Node;
use dispatcher_tests::{Kubernetes, Nats};
use fastrand::Rng;
use tokio::time::sleep;

use crate::scenario::{Scenario, repeat_on};
use dispatcher_tests::load_test::LoadTest;
use dispatcher_tests::test_env::TestEnv;

const CONSUMER: &str = "JOBS.dispatcher-simple";

async fn start() -> Result<LoadTest, String> {
    let namespace = Kubernetes::shared().await?.namespace().await;
    let run = LoadTest::new(TestEnv::new(Nats::cluster().await, namespace).await).await;
    run.recorder.expect_gaps();
    Ok(run)
}

/// A server is killed under load, and brought back when all works without it.
async fn lose(scenario: &Scenario, random: &mut Rng, what: &str, choose: impl AsyncFn(&Nats) -> &Node) {
    let nats = &scenario.env.nats;
    tokio::join!(scenario.load(0, 200), async {
        scenario.until_jobs(random.usize(1..150)).await;
        let node = choose(nats).await;
        let lost = Instant::now();
        node.kill().await;
        scenario.works_again(what, lost).await;
        node.start().await;
        nats.until_in_sync().await;
    });
    scenario.redeliver_now().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_of_the_requests_is_killed() {
    repeat_on("the JetStream leader of JOBS is killed", start, async |scenario, random| {
        lose(scenario, random, "JetStream leader lost", async |nats| nats.stream_leader("JOBS").await).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_of_the_events_is_killed() {
    repeat_on("the JetStream leader of JOB_STATUS is killed", start, async |scenario, random| {
        lose(scenario, random, "JetStream leader lost", async |nats| nats.stream_leader("JOB_STATUS").await)
            .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_of_the_consumer_is_killed() {
    repeat_on("the JetStream leader of the consumer is killed", start, async |scenario, random| {
        lose(scenario, random, "JetStream leader lost", async |nats| {
            nats.consumer_leader("JOBS", "dispatcher-simple").await
        })
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_that_it_is_connected_to_is_killed() {
    repeat_on(
        "the NATS server that the dispatcher is connected to is killed",
        start,
        async |scenario, random| {
            lose(scenario, random, "own NATS server of three lost", async |nats| {
                nats.server_of_dispatcher().await
            })
            .await;
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leaders_step_down() {
    repeat_on("JetStream leaders step down", start, async |scenario, random| {
        tokio::join!(scenario.load(0, 300), async {
            for round in 0..5 {
                scenario.until_jobs(round * 50 + random.usize(1..50)).await;
                let what = ["JOBS", "JOB_STATUS", "JOB_REJECTED", CONSUMER];
                let stepped = Instant::now();
                scenario.env.nats.step_down(what[random.usize(..what.len())]).await;
                scenario.works_again("JetStream leader stepped down", stepped).await;
            }
        });
        scenario.redeliver_now().await;
    })
    .await;
}

/// It misses much of what is stored, and takes it in while the load goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_lost_and_brought_back() {
    repeat_on("one of three NATS servers is away for a while", start, async |scenario, random| {
        let nats = &scenario.env.nats;
        let node = &nats.nodes[random.usize(..nats.nodes.len())];
        tokio::join!(scenario.load(0, 300), async {
            scenario.until_jobs(random.usize(1..80)).await;
            node.kill().await;
            scenario.until_jobs(random.usize(100..200)).await;
            let back = Instant::now();
            node.start().await;
            scenario.works_again("third NATS server back", back).await;
            nats.until_in_sync().await;
        });
        scenario.redeliver_now().await;
    })
    .await;
}

/// What it leads is led by another one meanwhile; when it goes on, it learns so.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_is_frozen() {
    repeat_on(
        "the JetStream leader of JOBS or JOB_STATUS is frozen for 5 to 30 s",
        start,
        async |scenario, random| {
            let nats = &scenario.env.nats;
            tokio::join!(scenario.load(0, 200), async {
                scenario.until_jobs(random.usize(1..150)).await;
                let stream = if random.bool() { "JOBS" } else { "JOB_STATUS" };
                let node = nats.stream_leader(stream).await;
                node.freeze().await;
                // The fault itself lasts this long.
                sleep(Duration::from_millis(random.u64(5_000..30_000))).await;
                node.resume().await;
                scenario.works_again("frozen JetStream leader goes on", Instant::now()).await;
            });
            nats.until_in_sync().await;
            scenario.redeliver_now().await;
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart() {
    repeat_on("a rolling restart of three NATS servers", start, async |scenario, random| {
        let nats = &scenario.env.nats;
        tokio::join!(scenario.load(0, 300), async {
            for (round, node) in nats.nodes.iter().enumerate() {
                scenario.until_jobs(round * 70 + random.usize(1..70)).await;
                // Both are usual.
                if random.bool() {
                    node.lame_duck().await;
                    node.ended().await;
                } else {
                    node.terminate().await;
                }
                let ended = Instant::now();
                node.start().await;
                scenario.works_again("rolling restart of NATS, each server", ended).await;
                nats.until_in_sync().await;
            }
        });
        scenario.redeliver_now().await;
    })
    .await;
}

/// Without a majority nothing is stored and nothing delivered.
#[tokio::test(flavor = "multi_thread")]
async fn two_of_three_are_lost() {
    repeat_on("two of three NATS servers are lost for some seconds", start, async |scenario, random| {
        let nats = &scenario.env.nats;
        let kept = random.usize(..nats.nodes.len());
        let lost: Vec<_> = (0..nats.nodes.len()).filter(|at| *at != kept).map(|at| &nats.nodes[at]).collect();
        tokio::join!(scenario.load(0, 200), async {
            scenario.until_jobs(random.usize(1..150)).await;
            for node in &lost {
                node.kill().await;
            }
            // The fault itself lasts this long.
            sleep(Duration::from_millis(random.u64(1_000..10_000))).await;
            for node in &lost {
                node.start().await;
            }
            scenario.works_again("JetStream has its majority again", Instant::now()).await;
        });
        nats.until_in_sync().await;
        scenario.redeliver_now().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_three_are_killed() {
    repeat_on("all three NATS servers are killed and restarted", start, async |scenario, random| {
        tokio::join!(scenario.load(0, 200), async {
            scenario.until_jobs(random.usize(1..150)).await;
            scenario.env.nats.kill().await;
            scenario.env.nats.restart().await;
            scenario.works_again("restart of all three NATS servers", Instant::now()).await;
        });
        scenario.env.nats.until_in_sync().await;
        scenario.redeliver_now().await;
    })
    .await;
}
