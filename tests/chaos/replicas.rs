//! Two replicas with leader election by a Lease: faults of the leader, the follower and the Lease.

use std::time::{Duration, Instant};

use dispatcher_tests::{Dispatcher, Kubernetes, Nats, Options, or_skip, until};
use kube::api::DeleteParams;

use crate::leadership::{holder, leader_and_follower, leases, until_leads};
use crate::scenario::{Scenario, repeat, repeat_on};
use dispatcher_tests::load_test::LoadTest;
use dispatcher_tests::test_env::TestEnv;
use dispatcher_tests::wait::TIMEOUT;

/// Longer than the Lease duration: a leader that is frozen this long loses the Lease.
const LONGER_THAN_THE_LEASE: Duration = Duration::from_secs(12);

/// A scenario with a second replica.
struct Pair<'a> {
    scenario: &'a Scenario,
    second: &'a Dispatcher,
}

impl<'a> Pair<'a> {
    async fn of(scenario: &'a mut Scenario) -> Self {
        scenario.add_replica().await;
        Self { scenario, second: &scenario.replicas[0] }
    }

    async fn leader_and_follower(&self) -> (&'a Dispatcher, &'a Dispatcher) {
        leader_and_follower(self.scenario, self.second).await
    }
}

async fn until_leadership(dispatcher: &Dispatcher, expected: &str) {
    until(&format!("/leader to return {expected}"), TIMEOUT, || async {
        let (_, body) = dispatcher.get("/leader").await?;
        if body.trim_end() == expected { Ok(()) } else { Err(body) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leader_killed() {
    repeat("of two replicas, the leader is killed", async |scenario, random| {
        let pair = Pair::of(scenario).await;
        let scenario = pair.scenario;
        tokio::join!(scenario.load(0, 100), async {
            scenario.until_jobs(random.usize(1..80)).await;
            let (leader, follower) = pair.leader_and_follower().await;
            let killed = Instant::now();
            leader.kill().await;
            until_leads(scenario, follower).await;
            scenario.recovered("leader takeover after a kill", killed);
            leader.restart().await;
        });
        scenario.redeliver_now().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn follower_killed() {
    repeat("of two replicas, the follower is killed", async |scenario, random| {
        let pair = Pair::of(scenario).await;
        let scenario = pair.scenario;
        for round in 0..3 {
            tokio::join!(scenario.load(round * 50, 50), async {
                scenario.until_jobs(round * 45 + random.usize(1..40)).await;
                let (_, follower) = pair.leader_and_follower().await;
                follower.kill().await;
                follower.restart().await;
            });
        }
        scenario.redeliver_now().await;
    })
    .await;
}

/// The killed leader has published events about these Jobs; the new leader publishes their
/// outcomes.
#[tokio::test(flavor = "multi_thread")]
async fn jobs_finish_and_are_deleted_after_the_leader_is_killed() {
    repeat("Jobs finish and are deleted after the leader is killed", async |scenario, random| {
        let pair = Pair::of(scenario).await;
        let scenario = pair.scenario;
        for name in ["wait-finished", "wait-deleted", "wait-finished-and-deleted", "wait-running"] {
            scenario.request(name, "ADDED").await;
        }
        tokio::join!(scenario.load(0, 40), async {
            scenario.until_jobs(3 + random.usize(0..35)).await;
            let (leader, follower) = pair.leader_and_follower().await;
            until_leadership(leader, r#"{"leader":true,"synced":true}"#).await;
            until_leadership(follower, r#"{"leader":false,"synced":false}"#).await;
            leader.kill().await;
        });
        let killed = Instant::now();
        scenario.redeliver_now().await;
        scenario.complete(&["wait-finished", "wait-finished-and-deleted"]).await;
        for name in ["wait-deleted", "wait-finished-and-deleted"] {
            scenario.env.namespace.jobs.delete(name, &DeleteParams::background()).await.unwrap();
        }
        assert_eq!(scenario.env.outcome("wait-finished").await["result"], "Complete");
        assert_eq!(scenario.env.outcome("wait-deleted").await["result"], "Deleted");
        // The follower observed the final condition before it led.
        assert_eq!(scenario.env.outcome("wait-finished-and-deleted").await["result"], "Complete");
        scenario.recovered("outcomes published after a leader kill", killed);
        scenario.complete(&["wait-running"]).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rolling_update() {
    repeat("rolling update of two replicas", async |scenario, random| {
        let pair = Pair::of(scenario).await;
        let scenario = pair.scenario;
        tokio::join!(scenario.load(0, 200), async {
            scenario.until_jobs(random.usize(1..100)).await;
            // As in a rolling update: the new replica is ready before an old one stops.
            let surge = scenario.start_replica().await;
            for old in [&scenario.dispatcher, pair.second] {
                let terminated = Instant::now();
                let leads = holder(scenario).await.as_deref() == Ok(&old.pod);
                assert_eq!(old.terminate().await, Some(0));
                if leads {
                    until("another replica to lead", TIMEOUT, || async {
                        let holder = holder(scenario).await?;
                        if holder.is_empty() || holder == old.pod { Err(holder) } else { Ok(()) }
                    })
                    .await;
                    scenario.recovered("leader takeover after SIGTERM", terminated);
                }
                old.restart().await;
            }
            assert_eq!(surge.terminate().await, Some(0));
        });
    })
    .await;
}

/// The leader is frozen while it publishes events. When it resumes, another replica leads, and the
/// fence refuses its events.
#[tokio::test(flavor = "multi_thread")]
async fn leader_frozen_longer_than_the_lease() {
    repeat("the leader is frozen for longer than the Lease duration", async |scenario, random| {
        let pair = Pair::of(scenario).await;
        let scenario = pair.scenario;
        tokio::join!(scenario.load(0, 200), async {
            scenario.until_jobs(random.usize(1..150)).await;
            let (leader, follower) = pair.leader_and_follower().await;
            let frozen = Instant::now();
            leader.freeze().await;
            until_leads(scenario, follower).await;
            scenario.recovered("leader takeover from a frozen leader", frozen);
            // The duration of the fault.
            tokio::time::sleep(LONGER_THAN_THE_LEASE.saturating_sub(frozen.elapsed())).await;
            leader.resume().await;
        });
        scenario.redeliver_now().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lease_deleted() {
    repeat("the Lease is deleted manually", async |scenario, random| {
        let pair = Pair::of(scenario).await;
        let scenario = pair.scenario;
        for round in 0..3 {
            tokio::join!(scenario.load(round * 50, 50), async {
                scenario.until_jobs(round * 45 + random.usize(1..40)).await;
                pair.leader_and_follower().await;
                leases(scenario).delete("dispatcher", &DeleteParams::default()).await.unwrap();
                pair.leader_and_follower().await;
            });
        }
    })
    .await;
}

/// Without the permission the dispatcher handles requests and reports the reason in `/readyz`. It
/// needs no restart.
#[tokio::test(flavor = "multi_thread")]
async fn lease_permission_revoked() {
    repeat("the permission for the Lease is revoked and granted again", async |scenario, random| {
        scenario.env.namespace.revoke_on("update", "leases").await;
        scenario.load(0, random.usize(1..60)).await;
        scenario.until_not_ready("cannot update resource \"leases\"").await;
        scenario.request("wait-a", "ADDED").await;
        scenario.complete(&["wait-a"]).await;
        let lines = scenario.dispatcher.log().lines().count();
        scenario.env.namespace.grant_on("update", "leases").await;
        let given = Instant::now();
        scenario.until_ready().await;
        scenario.recovered("permission for the Lease granted again", given);
        assert_eq!(scenario.env.outcome("wait-a").await["result"], "Complete");
        assert!(lines < 1000, "too many log lines: {lines}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn api_server_down_longer_than_the_lease() {
    let kubernetes = or_skip!(Kubernetes::control_plane(Options::default()).await);
    let start = async || {
        Ok(LoadTest::new(TestEnv::new(Nats::start().await, kubernetes.namespace().await).await).await)
    };
    repeat_on(
        "the API server is down for longer than the Lease duration",
        start,
        async |scenario, random| {
            let pair = Pair::of(scenario).await;
            let scenario = pair.scenario;
            tokio::join!(scenario.load(0, 100), async {
                scenario.until_jobs(random.usize(1..80)).await;
                kubernetes.kill_apiserver().await;
                // The duration of the fault.
                tokio::time::sleep(LONGER_THAN_THE_LEASE).await;
                kubernetes.start_apiserver().await;
                let back = Instant::now();
                pair.leader_and_follower().await;
                scenario.until_works("wait-after").await;
                scenario.recovered("API server back after 12 s, two replicas", back);
                scenario.complete(&["wait-after"]).await;
            });
        },
    )
    .await;
}
