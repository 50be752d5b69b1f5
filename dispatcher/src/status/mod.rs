//! The only writer of status: both halves bring states here, and only what the fence lets through is said.
//!
//! ```text
//! intake ── first_event(state) ─┐                 ┌─ publish, fenced ─▶ JOB_STATUS
//! watch ─── offer(state) ───────┼▶ lane per name ─┼─ verify, settle ──▶ Kubernetes
//! pods ──── sign(what one tells)┘                 ├─ beside: tails of logs, waits
//!                                                 └─ after an error: read the last message, decide again
//! ```
//!
//! What the watches bring is said while this replica reports ([`leadership`]); what a create brings, always. A Job has one
//! message in flight; different Jobs are pipelined, bounded in number and bytes.

mod desk;
mod early;
mod fit;
#[cfg(test)]
mod fuzz;
mod lane;
pub mod leadership;
pub mod phase;
pub mod signs;
mod stalls;
pub mod store;
mod word;
mod work;

pub(crate) use work::{backoff, now};

use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use self::{
    desk::{Desk, Key},
    lane::Done,
    leadership::Leadership,
    signs::Sign,
    store::Known,
    word::Word,
    work::Work,
};
use crate::{
    contract::{
        job::JobState,
        names::{JobName, Kind, RequestId},
    },
    health::Health,
    metrics::Metrics,
    spans::Spans,
    status::phase::{Source, Step},
};

/// States on their way to the writer.
const CHANNEL: usize = 256;

/// What the writer needs of Kubernetes: the report half gives it.
pub trait Cluster: Send + Sync + 'static {
    /// Whether the Job with this uid is gone. A Job that merely lost its label is not, and gets it back.
    fn is_gone(&self, state: &JobState) -> BoxFuture<'_, Result<bool, String>>;
    /// Whether the Job that is gone was to be cancelled.
    fn is_cancelled(&self, state: &JobState) -> BoxFuture<'_, Result<bool, String>>;
    /// Puts TTL and mark onto a Job whose outcome is stored.
    fn settle(&self, state: &JobState) -> BoxFuture<'_, Result<(), String>>;
    /// The tail of the log of a pod's container, where the kind allows it and it is to be had; within seconds.
    fn log_tail(&self, kind: &Kind, pod: &str, container: &str) -> BoxFuture<'static, Option<String>>;
}

/// Where both halves bring the states of Jobs.
#[derive(Clone)]
pub struct Writer(mpsc::Sender<Offer>);

/// The writer is gone: the service is stopping.
#[derive(Debug, thiserror::Error)]
#[error("the status writer has stopped")]
pub struct Stopped;

enum Offer {
    State(StateOffer),
    /// Asks for the Job of a request of which something is to be said.
    JobOf {
        job: Key,
        request_id: RequestId,
        answer: oneshot::Sender<Option<JobState>>,
    },
    Sign(Sign),
    /// The pods are listed anew.
    PodsListing,
    /// The pods are listed.
    PodsListed,
}

struct StateOffer {
    state: JobState,
    source: Source,
    known: Option<Known>,
    said: Option<oneshot::Sender<()>>,
}

impl Writer {
    /// Sees to it that something is said of the Job that a create returned; waits until it is stored. The caller
    /// bounds the wait.
    ///
    /// # Errors
    /// [`Stopped`] when the service is stopping.
    pub async fn first_event(&self, state: JobState, known: Option<Known>) -> Result<(), Stopped> {
        let (said, stored) = oneshot::channel();
        let offer = StateOffer { state, source: Source::Create, known, said: Some(said) };
        self.0.send(Offer::State(offer)).await.map_err(|_| Stopped)?;
        stored.await.map_err(|_| Stopped)
    }

    /// The Job that this process created for a request and of which something is to be said yet, be it gone or not.
    ///
    /// # Errors
    /// [`Stopped`] when the service is stopping.
    pub async fn job_of(
        &self,
        kind: &Kind,
        name: &JobName,
        request_id: &RequestId,
    ) -> Result<Option<JobState>, Stopped> {
        let (answer, found) = oneshot::channel();
        let (job, request_id) = ((kind.clone(), name.clone()), request_id.clone());
        self.0.send(Offer::JobOf { job, request_id, answer }).await.map_err(|_| Stopped)?;
        found.await.map_err(|_| Stopped)
    }

    /// Brings a state from the watch or a list, with what is known of its subject.
    ///
    /// # Errors
    /// [`Stopped`] when the service is stopping.
    pub async fn offer(&self, state: JobState, known: Option<Known>) -> Result<(), Stopped> {
        let offer = StateOffer { state, source: Source::Watch, known, said: None };
        self.0.send(Offer::State(offer)).await.map_err(|_| Stopped)
    }

    /// Brings what a pod or an Event tells of a Job.
    ///
    /// # Errors
    /// [`Stopped`] when the service is stopping.
    pub async fn sign(&self, sign: Sign) -> Result<(), Stopped> {
        self.0.send(Offer::Sign(sign)).await.map_err(|_| Stopped)
    }

    /// The pods are about to be listed anew: which of them run is told again.
    ///
    /// # Errors
    /// [`Stopped`] when the service is stopping.
    pub async fn pods_listing(&self) -> Result<(), Stopped> {
        self.0.send(Offer::PodsListing).await.map_err(|_| Stopped)
    }

    /// The pods are listed: outcomes need not wait for that any more.
    ///
    /// # Errors
    /// [`Stopped`] when the service is stopping.
    pub async fn pods_listed(&self) -> Result<(), Stopped> {
        self.0.send(Offer::PodsListed).await.map_err(|_| Stopped)
    }
}

/// Makes the writer and the task that does its work. The task ends when every [`Writer`] is dropped and what they
/// brought is said, or at once when `abort` is cancelled.
pub fn writer(
    store: store::Store,
    cluster: Arc<dyn Cluster>,
    (health, metrics, spans): (&Health, Metrics, Spans),
    leadership: Leadership,
    abort: CancellationToken,
) -> (Writer, impl Future<Output = ()> + use<>) {
    let (tx, rx) = mpsc::channel(CHANNEL);
    let work = Arc::new(Work::new(store, cluster, health, (metrics, spans)));
    (Writer(tx), async move {
        tokio::select! {
            () = Desk::new(work, leadership).run(rx) => {}
            () = abort.cancelled() => {}
        }
    })
}

impl Work {
    async fn run(&self, step: Step, state: JobState, known: Known) -> Done {
        // Each in a box of its own: thousands may be under way, and the usual ones are small.
        match step {
            Step::Say(event, outcome) => Box::pin(self.say(state, known, Word::Of(event, outcome))).await,
            Step::CloseEarlier => Box::pin(self.close_earlier(&state)).await,
            Step::Verify => Box::pin(self.verify(&state)).await,
            Step::Settle => Box::pin(self.settle(&state)).await,
            Step::Tell(telling) => Box::pin(self.say(state, known, telling.into())).await,
            Step::AwaitEarlier => Box::pin(self.await_earlier(&state)).await,
        }
    }
}
