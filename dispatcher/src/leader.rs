//! Leader election by a Lease: reads, claims, renews and releases it.
//!
//! The rules are in [`dispatcher_core::election`]. A paused leader cannot publish anything twice,
//! because every status event is fenced.

use std::time::{Duration, Instant};

use dispatcher_core::{
    election::{Election, HOLD},
    request::error::CallError,
};
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::{Api, api::PostParams};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{
    kube::{JobClient, call_within},
    leadership::LeaderHandle,
    telemetry::health::Component,
};

/// The deadline of one call. It is shorter than the time between a due renewal and the end of the
/// term.
const DEADLINE: Duration = Duration::from_secs(3);

/// The delay after a failed call.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// The delay after a write that conflicted with another replica's.
const CONFLICT_DELAY: Duration = Duration::from_millis(100);

/// Competes for one Lease.
pub(crate) struct Elector {
    api: Api<Lease>,
    /// `Lease <name> in <namespace>`, for logs.
    label: String,
    name: String,
    identity: String,
    election: Election,
    /// The Lease as this replica wrote it: a renewal needs no read.
    written: Option<Lease>,
    leadership: LeaderHandle,
    health: Component,
    last_success: Instant,
}

impl Elector {
    /// An elector for the Lease of these settings.
    pub(crate) fn new(
        jobs: &JobClient,
        settings: &crate::cli::Lease,
        leadership: LeaderHandle,
        health: Component,
    ) -> Self {
        let namespace = settings.namespace.as_deref().unwrap_or(jobs.namespace());
        let identity = settings.identity();
        Self {
            api: Api::namespaced(jobs.client(), namespace),
            label: format!("Lease {} in {namespace}", settings.name),
            name: settings.name.clone(),
            election: Election::new(identity.clone()),
            identity,
            written: None,
            leadership,
            health,
            last_success: Instant::now(),
        }
    }

    /// Competes until `stop`, then releases the Lease if this replica holds it.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        loop {
            let Some(wait) = stop.run_until_cancelled(self.turn()).await else { break };
            if stop.run_until_cancelled(sleep(wait)).await.is_none() {
                break;
            }
        }
        // Events in flight may still be stored: the fence orders them with the next leader's.
        self.release().await;
    }

    /// One read or write. Returns the delay before the next one.
    async fn turn(&mut self) -> Duration {
        // A term ends by the clock, even if the API server does not answer.
        self.update_leadership();
        let result = self.round().await;
        self.update_leadership();
        let now = Instant::now();
        let next = match result {
            Ok(wait) => {
                self.last_success = now;
                self.health.ready();
                wait
            }
            Err(error) => {
                // One call without an answer is tolerated; an error status is not.
                if error.code().is_some() || now >= self.last_success + HOLD {
                    self.health.not_ready(format!("{}: {error}", self.label));
                }
                RETRY_DELAY
            }
        };
        next.min(self.remaining(now).unwrap_or(next))
    }

    fn update_leadership(&mut self) {
        let until = self.election.leads_until(Instant::now());
        if !self.leadership.set(until) {
            return;
        }
        let lease = self.label.as_str();
        match until {
            Some(_) => tracing::info!(lease, "this replica is the leader"),
            None if self.election.holder() == self.identity => {
                tracing::warn!(lease, "lease not renewed in time: this replica is no longer the leader");
            }
            None => {}
        }
    }

    /// The rest of the term, if this replica is the leader.
    fn remaining(&self, now: Instant) -> Option<Duration> {
        self.election.leads_until(now).map(|until| until.saturating_duration_since(now))
    }

    async fn round(&mut self) -> Result<Duration, CallError> {
        let lease = match self.written.take() {
            Some(lease) => Some(lease),
            None => self.read().await?,
        };
        let now = Instant::now();
        if self.election.write_in(now) > Duration::ZERO {
            self.written = lease.filter(|_| self.election.leads_until(now).is_some());
            return Ok(self.election.next_in(now));
        }
        let (started, exists) = (now, lease.is_some());
        match self.write(lease, self.election.claim(&MicroTime(Timestamp::now()))).await {
            Ok(lease) => {
                let now = Instant::now();
                self.election.written(&lease.spec.clone().unwrap_or_default(), started, now);
                self.written = Some(lease);
                Ok(self.election.next_in(now))
            }
            // Another client wrote or deleted the Lease first: read it again.
            Err(error) if error.code() == Some(409) || (exists && error.code() == Some(404)) => {
                Ok(CONFLICT_DELAY)
            }
            Err(error) => Err(error),
        }
    }

    async fn read(&mut self) -> Result<Option<Lease>, CallError> {
        let lease = self.bounded(self.api.get_opt(&self.name)).await?;
        let spec = lease.as_ref().and_then(|lease| lease.spec.clone()).unwrap_or_default();
        if self.election.observe(&spec, Instant::now()) && self.election.holder() != self.identity {
            tracing::info!(
                lease = self.label,
                holder = self.election.holder(),
                "another replica is the leader"
            );
        }
        Ok(lease)
    }

    /// Creates the Lease, or replaces exactly the version that was read.
    async fn write(&self, seen: Option<Lease>, spec: LeaseSpec) -> Result<Lease, CallError> {
        let params = PostParams::default();
        if let Some(seen) = seen {
            let lease = Lease { spec: Some(spec), ..seen };
            self.bounded(self.api.replace(&self.name, &params, &lease)).await
        } else {
            let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
            let lease = Lease { metadata, spec: Some(spec) };
            self.bounded(self.api.create(&params, &lease)).await
        }
    }

    async fn release(&mut self) {
        // An interrupted write may have changed it.
        let released = async {
            let Some(lease) = self.read().await? else { return Ok(()) };
            let Some(spec) = self.election.release() else { return Ok(()) };
            self.write(Some(lease), spec).await.map(drop)
        };
        match released.await {
            Ok(()) => {}
            Err(error) => {
                tracing::debug!(%error, "lease not released: the next leader waits for it to expire");
            }
        }
    }

    /// A call that ends before the term does.
    async fn bounded<T>(&self, call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, CallError> {
        let deadline = self.remaining(Instant::now()).unwrap_or(DEADLINE).min(DEADLINE);
        call_within(deadline, call).await
    }
}
