//! A request is delivered again while whoever had it first still works on it.

use local_cluster::faults::Calls;

use crate::scenario::repeat_behind_proxies;

/// How many requests are published at once; one in twenty is bad.
const REQUESTS: usize = 100;
/// Those that become Jobs.
const GOOD: usize = 95;

/// The first replica's create is under way while the second one makes the Job.
#[tokio::test(flavor = "multi_thread")]
async fn delivered_to_a_second_replica_before_the_create() {
    repeat_behind_proxies(
        "redelivery to a second replica while a create is on its way",
        async |scenario, random| {
            let second = scenario.replica_without_proxies().await;
            scenario.replicas.push(second);
            // Half of them come to the first one.
            let held = scenario.api().hold_before(Calls::of("create", "jobs"), random.u32(1..20));
            tokio::join!(scenario.load(0, REQUESTS), async {
                held.reached().await;
                scenario.redeliver_now().await;
                scenario.until_jobs(GOOD).await;
                held.release();
            });
        },
    )
    .await;
}

/// The first replica's create is done, and it does not know that yet.
#[tokio::test(flavor = "multi_thread")]
async fn delivered_to_a_second_replica_after_the_create() {
    repeat_behind_proxies(
        "redelivery to a second replica while a create's answer is on its way",
        async |scenario, random| {
            let second = scenario.replica_without_proxies().await;
            scenario.replicas.push(second);
            let held = scenario.api().hold_after(Calls::of("create", "jobs"), random.u32(1..20));
            tokio::join!(scenario.load(0, REQUESTS), async {
                held.reached().await;
                scenario.redeliver_now().await;
                scenario.until_jobs(GOOD).await;
                held.release();
            });
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn delivered_to_the_same_replica_before_the_create() {
    repeat_behind_proxies(
        "redelivery to the same replica while a create is on its way",
        async |scenario, random| {
            let held = scenario.api().hold_before(Calls::of("create", "jobs"), random.u32(1..80));
            tokio::join!(scenario.load(0, REQUESTS), async {
                held.reached().await;
                scenario.redeliver_now().await;
                scenario.until_jobs(GOOD).await;
                held.release();
            });
        },
    )
    .await;
}
