//! Hostile clients and an innocent tenant, on the real Kubernetes: two replicas of the shipped
//! image run in pods, under the memory limit of `deploy/`.
//!
//! Each test prints its figures and writes them into `target/hostile/`. Correctness is asserted;
//! times are only reported. `make hostile` runs the full size of `docs/reliability.md`; the default
//! size is for `make test`. `HOSTILE_FLOOD_KIND=look-ups` runs one flood alone.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod dispatchers;
mod environment;
mod innocent;
mod report;
mod restart;
mod size;

use std::time::Duration;

use dispatcher_tests::attacks::{Attack, Attacks, Sent};
use dispatcher_tests::{only_on_kubernetes, or_skip, paths};

use self::{
    environment::Environment,
    innocent::Innocent,
    report::{Phase, Report},
    size::Size,
};

/// How long the hostile clients of a phase run before the innocent tenant starts.
const LEAD: Duration = Duration::from_millis(500);

#[tokio::test(flavor = "multi_thread")]
async fn hostile_clients_harm_no_other_tenant_on_the_newest_nats() {
    only_on_kubernetes!("the dispatcher runs in pods");
    alternate_phases(paths::NATS_VERSION).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_clients_harm_no_other_tenant_on_the_oldest_nats() {
    only_on_kubernetes!("the dispatcher runs in pods");
    alternate_phases(paths::OLDEST_NATS_VERSION).await;
}

/// Quiet and hostile phases alternate. Each hostile phase has another flood.
async fn alternate_phases(nats_version: &'static str) {
    let size = Size::from_env();
    let environment = or_skip!(Environment::start(nats_version).await);
    let mut innocent = Innocent::new(&environment, size.requests).await;
    let mut report = Report::new(&format!("hostile clients, nats-server {nats_version}"), size);
    // The first requests of a process open connections and fill caches.
    innocent.run().await;
    let floods = Size::floods();
    for flood in floods.iter().copied().cycle().take(size.rounds.max(floods.len())) {
        let latencies = innocent.run().await;
        report.add(Phase::quiet(latencies, environment.dispatchers.memory()));
        let (latencies, sent) =
            during_attack((&environment, flood, size, innocent.next), innocent.run()).await;
        report.add(Phase::hostile(flood, sent, latencies, environment.dispatchers.memory()));
        environment.until_quiet().await;
    }
    innocent.assert_each_outcome_is_complete().await;
    environment.dispatchers.assert_no_restart().await;
    environment.dispatchers.assert_ready().await;
    environment.assert_hostile_requests_ended_at_most_once().await;
    // The next test needs their share of the processors.
    environment.dispatchers.delete().await;
    report.finish();
}

/// Runs `work` during a flood and the attacks that never pause.
async fn during_attack<T>(
    (environment, flood, size, next): (&Environment, Attack, Size, usize),
    work: impl Future<Output = T>,
) -> (T, Sent) {
    let attacks = Attacks {
        nats: environment.env.nats.url.clone(),
        flood: (flood, size.flood, size.flood_interval()),
        // Ids of a later phase, so that the deduplication window is over when they are used.
        foreign_ids: (next + 2 * size.requests, Size::INTERVAL),
    };
    let running = attacks.start(env!("CARGO_BIN_EXE_hostile-client"));
    tokio::time::sleep(LEAD).await;
    let result = work.await;
    (result, running.stop().await)
}
