//! Two replicas: both take requests, one reports, elected by a Lease. Whatever becomes of either, the promises are kept.

use std::time::{Duration, Instant};

use dispatcher_tests::{Dispatcher, Kubernetes, Nats, Options, or_skip, until};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::DeleteParams;

use crate::run::Run;
use crate::world::{PATIENCE, World};

/// A Lease's duration and some: who was frozen that long has lost it.
const LONGER_THAN_THE_LEASE: Duration = Duration::from_secs(12);

/// A run with a second replica.
struct Pair {
    run: Run,
    second: Dispatcher,
}

impl Pair {
    async fn start() -> Result<Self, String> {
        Ok(Self::of(Run::start().await?).await)
    }

    async fn of(run: Run) -> Self {
        let second = run.replica().await;
        Self { run, second }
    }

    fn leases(&self) -> Api<Lease> {
        Api::namespaced(self.run.world.namespace.client.clone(), &self.run.world.namespace.name)
    }

    async fn holder(&self) -> Result<String, String> {
        let lease = self.leases().get("dispatcher").await.map_err(|error| error.to_string())?;
        Ok(lease.spec.and_then(|spec| spec.holder_identity).unwrap_or_default())
    }

    /// The one that reports, and the one that does not.
    async fn roles(&self) -> (&Dispatcher, &Dispatcher) {
        let holder = until("one of the two to report", PATIENCE, || async {
            let holder = self.holder().await?;
            if holder == self.run.dispatcher.pod || holder == self.second.pod {
                Ok(holder)
            } else {
                Err(holder)
            }
        })
        .await;
        if holder == self.second.pod {
            (&self.second, &self.run.dispatcher)
        } else {
            (&self.run.dispatcher, &self.second)
        }
    }

    async fn until_reports(&self, dispatcher: &Dispatcher) {
        until("the other one to report", PATIENCE, || async {
            let holder = self.holder().await?;
            if holder == dispatcher.pod { Ok(()) } else { Err(holder) }
        })
        .await;
    }
}

async fn until_says(dispatcher: &Dispatcher, reports: &str) {
    until(&format!("/reports to say {reports}"), PATIENCE, || async {
        let (_, body) = dispatcher.get("/reports").await?;
        if body.trim_end() == reports { Ok(()) } else { Err(body) }
    })
    .await;
}

fn print(what: &str, since: Instant) {
    println!("{what}: {:.1} s", since.elapsed().as_secs_f64());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reporting_replica_is_killed_under_load() {
    let pair = or_skip!(Pair::start().await);
    for round in 0..3 {
        tokio::join!(pair.run.load(round * 200, 200), async {
            pair.run.until_jobs(round * 180 + 30).await;
            let (leader, follower) = pair.roles().await;
            let killed = Instant::now();
            leader.kill().await;
            pair.until_reports(follower).await;
            print("the Lease is taken over after a kill", killed);
            leader.restart().await;
        });
    }
    pair.run.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_other_replica_is_killed_under_load() {
    let pair = or_skip!(Pair::start().await);
    for round in 0..5 {
        tokio::join!(pair.run.load(round * 100, 100), async {
            pair.run.until_jobs(round * 90 + 20).await;
            let (_, follower) = pair.roles().await;
            follower.kill().await;
            follower.restart().await;
        });
    }
    pair.run.finish().await;
}

/// Jobs that the one that was killed had spoken of: the other one tells their ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_takeover_tells_what_the_killed_one_did_not() {
    let pair = or_skip!(Pair::start().await);
    for name in ["wait-ends", "wait-vanishes", "wait-stays"] {
        pair.run.request(name, "ADDED").await;
    }
    let (leader, follower) = pair.roles().await;
    until_says(leader, r#"{"reports":true,"compared":true}"#).await;
    until_says(follower, r#"{"reports":false,"compared":false}"#).await;
    let killed = Instant::now();
    leader.kill().await;
    pair.run.end(&["wait-ends"]).await;
    pair.run.world.namespace.jobs.delete("wait-vanishes", &DeleteParams::background()).await.unwrap();
    assert_eq!(pair.run.world.outcome("wait-ends").await["result"], "Complete");
    assert_eq!(pair.run.world.outcome("wait-vanishes").await["result"], "Deleted");
    print("outcomes are told after a kill", killed);
    until_says(follower, r#"{"reports":true,"compared":true}"#).await;
    pair.run.end(&["wait-stays"]).await;
    pair.run.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_upgrade_under_load() {
    let pair = or_skip!(Pair::start().await);
    for round in 0..3 {
        tokio::join!(pair.run.load(round * 200, 200), async {
            pair.run.until_jobs(round * 180 + 30).await;
            // As a Deployment does it: the new one is ready before an old one goes.
            let surge = pair.run.replica().await;
            for old in [&pair.run.dispatcher, &pair.second] {
                let told = Instant::now();
                let reports = pair.holder().await.as_deref() == Ok(&old.pod);
                assert_eq!(old.terminate().await, Some(0));
                if reports {
                    until("another one to report", PATIENCE, || async {
                        let holder = pair.holder().await?;
                        if holder.is_empty() || holder == old.pod { Err(holder) } else { Ok(()) }
                    })
                    .await;
                    print("the Lease is taken over from one that was told to stop", told);
                }
                old.restart().await;
            }
            assert_eq!(surge.terminate().await, Some(0));
        });
    }
    pair.run.finish().await;
}

/// The one that reports is frozen in its tracks, with events under way; when it goes on, another one reports. The fence
/// lets nothing of it through that was said meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn the_reporting_replica_is_frozen_for_longer_than_the_lease() {
    let pair = or_skip!(Pair::start().await);
    for round in 0..3 {
        tokio::join!(pair.run.load(round * 300, 300), async {
            pair.run.until_jobs(round * 270 + 30).await;
            let (leader, follower) = pair.roles().await;
            let frozen = Instant::now();
            leader.stop_signal().await;
            pair.until_reports(follower).await;
            print("the Lease is taken over from one that is frozen", frozen);
            // The fault itself lasts this long.
            tokio::time::sleep(LONGER_THAN_THE_LEASE.saturating_sub(frozen.elapsed())).await;
            leader.cont_signal().await;
        });
    }
    pair.run.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_is_deleted_by_hand_is_made_again() {
    let pair = or_skip!(Pair::start().await);
    for round in 0..3 {
        tokio::join!(pair.run.load(round * 100, 100), async {
            pair.run.until_jobs(round * 90 + 20).await;
            pair.roles().await;
            pair.leases().delete("dispatcher", &DeleteParams::default()).await.unwrap();
            pair.roles().await;
        });
    }
    pair.run.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_is_away_for_longer_than_the_lease() {
    let kubernetes = or_skip!(Kubernetes::control_plane(Options::default()).await);
    let run = Run::of(World::of(Nats::start().await, kubernetes.namespace().await).await).await;
    let pair = Pair::of(run).await;
    tokio::join!(pair.run.load(0, 200), async {
        pair.run.until_jobs(40).await;
        kubernetes.kill_apiserver().await;
        // The fault itself lasts this long.
        tokio::time::sleep(LONGER_THAN_THE_LEASE).await;
        let back = Instant::now();
        kubernetes.start_apiserver().await;
        pair.roles().await;
        print("one reports after the API server is back", back);
    });
    pair.run.finish().await;
}

/// Without the right it takes requests and says why it does not report; nothing has to be restarted.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_to_the_lease_it_is_not_ready() {
    let run = or_skip!(Run::start().await);
    run.world.namespace.take_right_to("update", "leases").await;
    run.until_not_ready("cannot update resource \"leases\"").await;
    run.request("wait-a", "ADDED").await;
    run.end(&["wait-a"]).await;
    let lines = run.dispatcher.log().lines().count();
    run.world.namespace.give_right_to("update", "leases").await;
    run.until_ready().await;
    assert_eq!(run.world.outcome("wait-a").await["result"], "Complete");
    assert!(lines < 100, "no flood of log lines: {lines}");
    run.finish().await;
}
