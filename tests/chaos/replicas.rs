//! Two replicas: both take requests, one reports, elected by a Lease. Whatever becomes of either, the promises are kept.

use std::time::{Duration, Instant};

use dispatcher_tests::{Dispatcher, Kubernetes, Nats, Options, or_skip, until};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::DeleteParams;

use crate::scenario::{Scenario, repeat, repeat_on};
use dispatcher_tests::load_test::LoadTest;
use dispatcher_tests::test_env::TestEnv;
use dispatcher_tests::wait::TIMEOUT;

/// A Lease's duration and some: who was frozen that long has lost it.
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

    fn leases(&self) -> Api<Lease> {
        Api::namespaced(self.scenario.env.namespace.client.clone(), &self.scenario.env.namespace.name)
    }

    async fn holder(&self) -> Result<String, String> {
        let lease = self.leases().get("dispatcher").await.map_err(|error| error.to_string())?;
        Ok(lease.spec.and_then(|spec| spec.holder_identity).unwrap_or_default())
    }

    /// The one that reports, and the one that does not.
    async fn roles(&self) -> (&Dispatcher, &Dispatcher) {
        let first = &self.scenario.dispatcher;
        let holder = until("one of the two to report", TIMEOUT, || async {
            let holder = self.holder().await?;
            if holder == first.pod || holder == self.second.pod { Ok(holder) } else { Err(holder) }
        })
        .await;
        if holder == self.second.pod { (self.second, first) } else { (first, self.second) }
    }

    async fn until_reports(&self, dispatcher: &Dispatcher) {
        until("the other one to report", TIMEOUT, || async {
            let holder = self.holder().await?;
            if holder == dispatcher.pod { Ok(()) } else { Err(holder) }
        })
        .await;
    }
}

async fn until_says(dispatcher: &Dispatcher, reports: &str) {
    until(&format!("/leader to say {reports}"), TIMEOUT, || async {
        let (_, body) = dispatcher.get("/leader").await?;
        if body.trim_end() == reports { Ok(()) } else { Err(body) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reporting_replica_is_killed() {
    repeat("of two replicas the one that reports is killed", async |scenario, random| {
        let pair = Pair::of(scenario).await;
        let scenario = pair.scenario;
        tokio::join!(scenario.load(0, 100), async {
            scenario.until_jobs(random.usize(1..80)).await;
            let (leader, follower) = pair.roles().await;
            let killed = Instant::now();
            leader.kill().await;
            pair.until_reports(follower).await;
            scenario.recovered("leader takeover after a kill", killed);
            leader.restart().await;
        });
        scenario.redeliver_now().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_other_replica_is_killed() {
    repeat("of two replicas the one that does not report is killed", async |scenario, random| {
        let pair = Pair::of(scenario).await;
        let scenario = pair.scenario;
        for round in 0..3 {
            tokio::join!(scenario.load(round * 50, 50), async {
                scenario.until_jobs(round * 45 + random.usize(1..40)).await;
                let (_, follower) = pair.roles().await;
                follower.kill().await;
                follower.restart().await;
            });
        }
        scenario.redeliver_now().await;
    })
    .await;
}

/// Jobs that the one that was killed had spoken of: the other one tells their ends.
#[tokio::test(flavor = "multi_thread")]
async fn jobs_end_and_vanish_after_the_reporting_replica_was_killed() {
    repeat("Jobs end and are deleted after the replica that reports was killed", async |scenario, random| {
        let pair = Pair::of(scenario).await;
        let scenario = pair.scenario;
        for name in ["wait-ends", "wait-vanishes", "wait-ends-and-vanishes", "wait-stays"] {
            scenario.request(name, "ADDED").await;
        }
        tokio::join!(scenario.load(0, 40), async {
            scenario.until_jobs(3 + random.usize(0..35)).await;
            let (leader, follower) = pair.roles().await;
            until_says(leader, r#"{"leader":true,"synced":true}"#).await;
            until_says(follower, r#"{"leader":false,"synced":false}"#).await;
            leader.kill().await;
        });
        let killed = Instant::now();
        scenario.redeliver_now().await;
        scenario.complete(&["wait-ends", "wait-ends-and-vanishes"]).await;
        for name in ["wait-vanishes", "wait-ends-and-vanishes"] {
            scenario.env.namespace.jobs.delete(name, &DeleteParams::background()).await.unwrap();
        }
        assert_eq!(scenario.env.outcome("wait-ends").await["result"], "Complete");
        assert_eq!(scenario.env.outcome("wait-vanishes").await["result"], "Deleted");
        // It did not report then, and watched all the same.
        assert_eq!(scenario.env.outcome("wait-ends-and-vanishes").await["result"], "Complete");
        scenario.recovered("outcomes told after a leader was killed", killed);
        scenario.complete(&["wait-stays"]).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_upgrade() {
    repeat("a rolling upgrade of two replicas", async |scenario, random| {
        let pair = Pair::of(scenario).await;
        let scenario = pair.scenario;
        tokio::join!(scenario.load(0, 200), async {
            scenario.until_jobs(random.usize(1..100)).await;
            // As a Deployment does it: the new one is ready before an old one goes.
            let surge = scenario.start_replica().await;
            for old in [&scenario.dispatcher, pair.second] {
                let told = Instant::now();
                let reports = pair.holder().await.as_deref() == Ok(&old.pod);
                assert_eq!(old.terminate().await, Some(0));
                if reports {
                    until("another one to report", TIMEOUT, || async {
                        let holder = pair.holder().await?;
                        if holder.is_empty() || holder == old.pod { Err(holder) } else { Ok(()) }
                    })
                    .await;
                    scenario.recovered("leader takeover after SIGTERM", told);
                }
                old.restart().await;
            }
            assert_eq!(surge.terminate().await, Some(0));
        });
    })
    .await;
}

/// The one that reports is frozen in its tracks, with events under way; when it goes on, another one reports. The fence
/// lets nothing of it through that was said meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn the_reporting_replica_is_frozen_for_longer_than_the_lease() {
    repeat("the replica that reports is frozen for longer than its Lease", async |scenario, random| {
        let pair = Pair::of(scenario).await;
        let scenario = pair.scenario;
        tokio::join!(scenario.load(0, 200), async {
            scenario.until_jobs(random.usize(1..150)).await;
            let (leader, follower) = pair.roles().await;
            let frozen = Instant::now();
            leader.freeze().await;
            pair.until_reports(follower).await;
            scenario.recovered("leader takeover from one that is frozen", frozen);
            // The fault itself lasts this long.
            tokio::time::sleep(LONGER_THAN_THE_LEASE.saturating_sub(frozen.elapsed())).await;
            leader.resume().await;
        });
        scenario.redeliver_now().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lease_is_deleted_by_hand() {
    repeat("the Lease is deleted by hand", async |scenario, random| {
        let pair = Pair::of(scenario).await;
        let scenario = pair.scenario;
        for round in 0..3 {
            tokio::join!(scenario.load(round * 50, 50), async {
                scenario.until_jobs(round * 45 + random.usize(1..40)).await;
                pair.roles().await;
                pair.leases().delete("dispatcher", &DeleteParams::default()).await.unwrap();
                pair.roles().await;
            });
        }
    })
    .await;
}

/// Without the right it takes requests and says why it does not report; nothing has to be restarted.
#[tokio::test(flavor = "multi_thread")]
async fn the_right_to_the_lease_is_taken_away() {
    repeat("the right to the Lease is taken away and given back", async |scenario, random| {
        scenario.env.namespace.revoke_on("update", "leases").await;
        scenario.load(0, random.usize(1..60)).await;
        scenario.until_not_ready("cannot update resource \"leases\"").await;
        scenario.request("wait-a", "ADDED").await;
        scenario.complete(&["wait-a"]).await;
        let lines = scenario.dispatcher.log().lines().count();
        scenario.env.namespace.grant_on("update", "leases").await;
        let given = Instant::now();
        scenario.until_ready().await;
        scenario.recovered("right to the Lease given back", given);
        assert_eq!(scenario.env.outcome("wait-a").await["result"], "Complete");
        assert!(lines < 1000, "no flood of log lines: {lines}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_is_away_for_longer_than_the_lease() {
    let kubernetes = or_skip!(Kubernetes::control_plane(Options::default()).await);
    let start = async || {
        Ok(LoadTest::new(TestEnv::new(Nats::start().await, kubernetes.namespace().await).await).await)
    };
    repeat_on("the API server is away for longer than the Lease", start, async |scenario, random| {
        let pair = Pair::of(scenario).await;
        let scenario = pair.scenario;
        tokio::join!(scenario.load(0, 100), async {
            scenario.until_jobs(random.usize(1..80)).await;
            kubernetes.kill_apiserver().await;
            // The fault itself lasts this long.
            tokio::time::sleep(LONGER_THAN_THE_LEASE).await;
            kubernetes.start_apiserver().await;
            let back = Instant::now();
            pair.roles().await;
            scenario.until_works("wait-after").await;
            scenario.recovered("API server back after 12 s, two replicas", back);
            scenario.complete(&["wait-after"]).await;
        });
    })
    .await;
}
