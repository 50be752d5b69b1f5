//! The Lease: looked at, taken, renewed, released. [`super::lease`] says when; here it is done.

use std::time::{Duration, Instant};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::{Api, api::PostParams};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    kube::{JobClient, chain},
    leader::LeaderHandle,
    telemetry::health::Component,
};
use dispatcher_core::election::{Election, HOLD};

/// How long one call may take: less than the time between a renewal that is due and the end of the lead.
const DEADLINE: Duration = Duration::from_secs(3);
/// After a call that failed.
const RETRY: Duration = Duration::from_secs(1);
/// After a write that another replica was quicker with: both look again, and not in step with a third.
const CONFLICT: Duration = Duration::from_millis(100);

/// See the module.
pub struct Elector {
    api: Api<Lease>,
    /// `Lease <name> in <namespace>`.
    what: String,
    name: String,
    identity: String,
    election: Election,
    /// The Lease as this replica wrote it; renewed without a look before.
    written: Option<Lease>,
    lead: LeaderHandle,
    health: Component,
    worked: Instant,
}

/// A call that failed.
#[derive(Debug, thiserror::Error)]
enum LeaseError {
    /// The API server's word.
    #[error("{} ({} {})", .0.message, .0.code, .0.reason)]
    Status(Box<kube::core::Status>),
    /// It may have been done.
    #[error("{0}")]
    NoAnswer(String),
}

impl LeaseError {
    fn code(&self) -> u16 {
        match self {
            Self::Status(status) => status.code,
            Self::NoAnswer(_) => 0,
        }
    }
}

impl Elector {
    /// A replica that stands for the Lease of these settings.
    pub(crate) fn new(
        jobs: &JobClient,
        settings: &crate::cli::Lease,
        lead: LeaderHandle,
        health: Component,
    ) -> Self {
        let namespace = settings.namespace.as_deref().unwrap_or(jobs.namespace());
        let identity = settings.identity();
        Self {
            api: Api::namespaced(jobs.client(), namespace),
            what: format!("Lease {} in {namespace}", settings.name),
            name: settings.name.clone(),
            election: Election::new(identity.clone()),
            identity,
            written: None,
            lead,
            health,
            worked: Instant::now(),
        }
    }

    /// Stands for election until `stop`; then releases the Lease, if it is ours.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            let Some(wait) = stop.run_until_cancelled(self.turn()).await else { break };
            if stop.run_until_cancelled(sleep(wait)).await.is_none() {
                break;
            }
        }
        // What is under way is still said: the fence sees to the order between it and the next one's.
        self.release().await;
    }

    /// One look or write, told to all; how long until the next.
    async fn turn(&mut self) -> Duration {
        // Its end comes by the clock, whatever the API server does.
        self.tell();
        let done = self.round().await;
        self.tell();
        let now = Instant::now();
        let next = match done {
            Ok(wait) => {
                self.worked = now;
                self.health.ready();
                wait
            }
            Err(error) => {
                // A call that is late once is no matter; what the API server says is.
                if error.code() != 0 || now >= self.worked + HOLD {
                    self.health.not_ready(format!("{}: {error}", self.what));
                }
                RETRY
            }
        };
        next.min(self.left(now).unwrap_or(next))
    }

    fn tell(&mut self) {
        let until = self.election.until(Instant::now());
        if !self.lead.set(until) {
            return;
        }
        let lease = self.what.as_str();
        match until {
            Some(_) => tracing::info!(lease, "this replica reports"),
            None if self.election.holder() == self.identity => {
                tracing::warn!(lease, "not renewed in time: this replica reports no more");
            }
            None => {}
        }
    }

    /// How long this replica still reports; `None` where it does not.
    fn left(&self, now: Instant) -> Option<Duration> {
        self.election.until(now).map(|until| until.saturating_duration_since(now))
    }

    async fn round(&mut self) -> Result<Duration, LeaseError> {
        let lease = match self.written.take() {
            Some(lease) => Some(lease),
            None => self.look().await?,
        };
        let now = Instant::now();
        if self.election.write_in(now) > Duration::ZERO {
            self.written = lease.filter(|_| self.election.until(now).is_some());
            return Ok(self.election.next_in(now));
        }
        let (asked, there) = (now, lease.is_some());
        match self.write(lease, self.election.claim(&MicroTime(Timestamp::now()))).await {
            Ok(lease) => {
                let now = Instant::now();
                self.election.granted(&lease.spec.clone().unwrap_or_default(), asked, now);
                self.written = Some(lease);
                Ok(self.election.next_in(now))
            }
            // Another replica was quicker, or somebody has changed or deleted it: look again.
            Err(error) if error.code() == 409 || (there && error.code() == 404) => Ok(CONFLICT),
            Err(error) => Err(error),
        }
    }

    async fn look(&mut self) -> Result<Option<Lease>, LeaseError> {
        let lease = self.bounded(self.api.get_opt(&self.name)).await?;
        let spec = lease.as_ref().and_then(|lease| lease.spec.clone()).unwrap_or_default();
        if self.election.saw(&spec, Instant::now()) && self.election.holder() != self.identity {
            tracing::info!(lease = self.what, holder = self.election.holder(), "another replica reports");
        }
        Ok(lease)
    }

    /// In place of the one that was seen, and of no other: its resourceVersion goes along.
    async fn write(&self, seen: Option<Lease>, spec: LeaseSpec) -> Result<Lease, LeaseError> {
        let params = PostParams::default();
        match seen {
            Some(seen) => {
                let lease = Lease { spec: Some(spec), ..seen };
                self.bounded(self.api.replace(&self.name, &params, &lease)).await
            }
            None => {
                let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
                let lease = Lease { metadata, spec: Some(spec) };
                self.bounded(self.api.create(&params, &lease)).await
            }
        }
    }

    async fn release(&mut self) {
        // As it is now: a write may have been broken off.
        let released = async {
            let Some(lease) = self.look().await? else { return Ok(()) };
            let Some(spec) = self.election.release() else { return Ok(()) };
            self.write(Some(lease), spec).await.map(drop)
        };
        match released.await {
            Ok(()) => {}
            Err(error) => {
                tracing::debug!(%error, "the Lease is not released; the next one waits for its end")
            }
        }
    }

    async fn bounded<T>(&self, call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, LeaseError> {
        let deadline = self.left(Instant::now()).unwrap_or(DEADLINE).min(DEADLINE);
        match timeout(deadline, call).await {
            Err(_) => Err(LeaseError::NoAnswer(format!("no answer within {} ms", deadline.as_millis()))),
            Ok(Err(kube::Error::Api(status))) => Err(LeaseError::Status(status)),
            Ok(Err(error)) => Err(LeaseError::NoAnswer(chain(&error))),
            Ok(Ok(done)) => Ok(done),
        }
    }
}
