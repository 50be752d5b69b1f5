//! A NATS cluster of three with three replicas per stream: leaders are killed, step down and
//! freeze, servers are lost and restarted.

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

/// Kills a server under load and restarts it once the system works without it.
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
async fn leader_of_jobs_killed() {
    repeat_on("the JetStream leader of JOBS is killed", start, async |scenario, random| {
        lose(scenario, random, "JetStream leader lost", async |nats| nats.stream_leader("JOBS").await).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leader_of_job_status_killed() {
    repeat_on("the JetStream leader of JOB_STATUS is killed", start, async |scenario, random| {
        lose(scenario, random, "JetStream leader lost", async |nats| nats.stream_leader("JOB_STATUS").await)
            .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leader_of_consumer_killed() {
    repeat_on("the JetStream leader of the consumer is killed", start, async |scenario, random| {
        lose(scenario, random, "JetStream leader lost", async |nats| {
            nats.consumer_leader("JOBS", "dispatcher-simple").await
        })
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connected_server_killed() {
    repeat_on(
        "the NATS server that the dispatcher is connected to is killed",
        start,
        async |scenario, random| {
            lose(scenario, random, "connected NATS server of three lost", async |nats| {
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

/// The server misses many messages and catches up under load.
#[tokio::test(flavor = "multi_thread")]
async fn one_server_down() {
    repeat_on("one of three NATS servers is temporarily down", start, async |scenario, random| {
        let nats = &scenario.env.nats;
        let node = &nats.nodes[random.usize(..nats.nodes.len())];
        tokio::join!(scenario.load(0, 300), async {
            scenario.until_jobs(random.usize(1..80)).await;
            node.kill().await;
            scenario.until_jobs(random.usize(100..200)).await;
            let back = Instant::now();
            node.start().await;
            scenario.works_again("third NATS server restarted", back).await;
            nats.until_in_sync().await;
        });
        scenario.redeliver_now().await;
    })
    .await;
}

/// Another server becomes leader; the frozen one learns so when it resumes.
#[tokio::test(flavor = "multi_thread")]
async fn jetstream_leader_frozen() {
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
                // The duration of the fault.
                sleep(Duration::from_millis(random.u64(5_000..30_000))).await;
                node.resume().await;
                scenario.works_again("frozen JetStream leader resumed", Instant::now()).await;
            });
            nats.until_in_sync().await;
            scenario.redeliver_now().await;
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nats_rolling_restart() {
    repeat_on("rolling restart of three NATS servers", start, async |scenario, random| {
        let nats = &scenario.env.nats;
        tokio::join!(scenario.load(0, 300), async {
            for (round, node) in nats.nodes.iter().enumerate() {
                scenario.until_jobs(round * 70 + random.usize(1..70)).await;
                // Both are common.
                if random.bool() {
                    node.lame_duck().await;
                    node.ended().await;
                } else {
                    node.terminate().await;
                }
                let ended = Instant::now();
                node.start().await;
                scenario.works_again("rolling restart of NATS, per server", ended).await;
                nats.until_in_sync().await;
            }
        });
        scenario.redeliver_now().await;
    })
    .await;
}

/// Without a quorum nothing is stored and nothing is delivered.
#[tokio::test(flavor = "multi_thread")]
async fn two_servers_down() {
    repeat_on("two of three NATS servers are down for some seconds", start, async |scenario, random| {
        let nats = &scenario.env.nats;
        let kept = random.usize(..nats.nodes.len());
        let lost: Vec<_> = (0..nats.nodes.len()).filter(|at| *at != kept).map(|at| &nats.nodes[at]).collect();
        tokio::join!(scenario.load(0, 200), async {
            scenario.until_jobs(random.usize(1..150)).await;
            for node in &lost {
                node.kill().await;
            }
            // The duration of the fault.
            sleep(Duration::from_millis(random.u64(1_000..10_000))).await;
            for node in &lost {
                node.start().await;
            }
            scenario.works_again("JetStream quorum restored", Instant::now()).await;
        });
        nats.until_in_sync().await;
        scenario.redeliver_now().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_servers_killed() {
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
