//! A request is redelivered while its first delivery is still being handled.

use local_cluster::faults::Calls;

use crate::scenario::repeat_behind_proxies;

/// The number of concurrent requests; one in twenty is invalid.
const REQUESTS: usize = 100;
/// The number of valid requests.
const VALID: usize = 95;

/// The first replica's create is in flight while the second replica creates the Job.
#[tokio::test(flavor = "multi_thread")]
async fn redelivered_to_another_replica_before_the_create() {
    repeat_behind_proxies(
        "redelivery to another replica while a create is in flight",
        async |scenario, random| {
            let second = scenario.replica_without_proxies().await;
            scenario.replicas.push(second);
            // Each replica gets about half of the requests.
            let held = scenario.api().hold_before(Calls::of("create", "jobs"), random.u32(1..20));
            tokio::join!(scenario.load(0, REQUESTS), async {
                held.reached().await;
                scenario.redeliver_now().await;
                scenario.until_jobs(VALID).await;
                held.release();
            });
        },
    )
    .await;
}

/// The first replica's create has taken effect, but the replica has no answer yet.
#[tokio::test(flavor = "multi_thread")]
async fn redelivered_to_another_replica_after_the_create() {
    repeat_behind_proxies(
        "redelivery to another replica while a create's answer is in flight",
        async |scenario, random| {
            let second = scenario.replica_without_proxies().await;
            scenario.replicas.push(second);
            let held = scenario.api().hold_after(Calls::of("create", "jobs"), random.u32(1..20));
            tokio::join!(scenario.load(0, REQUESTS), async {
                held.reached().await;
                scenario.redeliver_now().await;
                scenario.until_jobs(VALID).await;
                held.release();
            });
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redelivered_to_the_same_replica_before_the_create() {
    repeat_behind_proxies(
        "redelivery to the same replica while a create is in flight",
        async |scenario, random| {
            let held = scenario.api().hold_before(Calls::of("create", "jobs"), random.u32(1..80));
            tokio::join!(scenario.load(0, REQUESTS), async {
                held.reached().await;
                scenario.redeliver_now().await;
                scenario.until_jobs(VALID).await;
                held.release();
            });
        },
    )
    .await;
}
