//! The only writer of status: both halves bring states here, and only what the fence lets through is said.
//!
//! ```text
//! intake ── publish_added(state) ─┐                 ┌─ publish, fenced ─▶ JOB_STATUS
//! watch ─── offer(state) ───────┼▶ lane per name ─┼─ verify, settle ──▶ Kubernetes
//! pods ──── sign(what one tells)┘                 ├─ beside: tails of logs, waits
//!                                                 └─ after an error: read the last message, decide again
//! ```
//!
//! What the watches bring is said while this replica reports ([`leadership`]); what a create brings, always. A Job has one
//! message in flight; different Jobs are pipelined, bounded in number and bytes.

mod log;
mod reconciler;
mod runner;
pub mod store;

use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::telemetry::{health::Health, metrics::Metrics, spans::Spans};
use crate::{
    leader::Leadership,
    status::{reconciler::StatusReconciler, runner::ActionRunner},
};
use dispatcher_core::status::{
    SubjectKey, SubjectState, event_body::EventBody, pod_tracker::PodObservation, subject_queue::ActionResult,
};
use dispatcher_core::{
    contract::{
        job::JobState,
        names::{JobName, RequestId, TemplateName},
    },
    status::reconcile::{Action, Source},
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
    fn retire(&self, state: &JobState) -> BoxFuture<'_, Result<(), String>>;
    /// The tail of the log of a pod's container, where the template allows it and it is to be had; within seconds.
    fn log_tail(
        &self,
        template: &TemplateName,
        pod: &str,
        container: &str,
    ) -> BoxFuture<'static, Option<String>>;
}

/// Where both halves bring the states of Jobs.
#[derive(Clone)]
pub struct StatusHandle(mpsc::Sender<StatusInput>);

/// The writer is gone: the service is stopping.
#[derive(Debug, thiserror::Error)]
#[error("the status writer has stopped")]
pub struct Stopped;

enum StatusInput {
    State(JobInput),
    /// Asks for the Job of a request of which something is to be said.
    JobOf {
        job: SubjectKey,
        request_id: RequestId,
        answer: oneshot::Sender<Option<JobState>>,
    },
    PodObservation(PodObservation),
    /// The pods are listed anew.
    PodsListing,
    /// The pods are listed.
    PodsListed,
}

struct JobInput {
    state: JobState,
    source: Source,
    known: Option<SubjectState>,
    said: Option<oneshot::Sender<()>>,
}

impl StatusHandle {
    /// Sees to it that something is said of the Job that a create returned; waits until it is stored. The caller
    /// bounds the wait.
    ///
    /// # Errors
    /// [`Stopped`] when the service is stopping.
    pub async fn publish_added(&self, state: JobState, known: Option<SubjectState>) -> Result<(), Stopped> {
        let (said, stored) = oneshot::channel();
        let offer = JobInput { state, source: Source::Create, known, said: Some(said) };
        self.0.send(StatusInput::State(offer)).await.map_err(|_| Stopped)?;
        stored.await.map_err(|_| Stopped)
    }

    /// The Job that this process created for a request and of which something is to be said yet, be it gone or not.
    ///
    /// # Errors
    /// [`Stopped`] when the service is stopping.
    pub async fn pending_job(
        &self,
        template: &TemplateName,
        name: &JobName,
        request_id: &RequestId,
    ) -> Result<Option<JobState>, Stopped> {
        let (answer, found) = oneshot::channel();
        let (job, request_id) = ((template.clone(), name.clone()), request_id.clone());
        self.0.send(StatusInput::JobOf { job, request_id, answer }).await.map_err(|_| Stopped)?;
        found.await.map_err(|_| Stopped)
    }

    /// Brings a state from the watch or a list, with what is known of its subject.
    ///
    /// # Errors
    /// [`Stopped`] when the service is stopping.
    pub async fn offer(&self, state: JobState, known: Option<SubjectState>) -> Result<(), Stopped> {
        let offer = JobInput { state, source: Source::Watch, known, said: None };
        self.0.send(StatusInput::State(offer)).await.map_err(|_| Stopped)
    }

    /// Brings what a pod or an Event tells of a Job.
    ///
    /// # Errors
    /// [`Stopped`] when the service is stopping.
    pub async fn sign(&self, sign: PodObservation) -> Result<(), Stopped> {
        self.0.send(StatusInput::PodObservation(sign)).await.map_err(|_| Stopped)
    }

    /// The pods are about to be listed anew: which of them run is told again.
    ///
    /// # Errors
    /// [`Stopped`] when the service is stopping.
    pub async fn pods_listing(&self) -> Result<(), Stopped> {
        self.0.send(StatusInput::PodsListing).await.map_err(|_| Stopped)
    }

    /// The pods are listed: outcomes need not wait for that any more.
    ///
    /// # Errors
    /// [`Stopped`] when the service is stopping.
    pub async fn pods_listed(&self) -> Result<(), Stopped> {
        self.0.send(StatusInput::PodsListed).await.map_err(|_| Stopped)
    }
}

/// Makes the writer and the task that does its work. The task ends when every [`StatusHandle`] is dropped and what they
/// brought is said, or at once when `abort` is cancelled.
pub fn writer(
    store: store::Store,
    cluster: Arc<dyn Cluster>,
    (health, metrics, spans): (&Health, Metrics, Spans),
    leadership: Leadership,
    abort: CancellationToken,
) -> (StatusHandle, impl Future<Output = ()> + use<>) {
    let (tx, rx) = mpsc::channel(CHANNEL);
    let work = Arc::new(ActionRunner::new(store, cluster, health, (metrics, spans)));
    (StatusHandle(tx), async move {
        tokio::select! {
            () = StatusReconciler::new(work, leadership).run(rx) => {}
            () = abort.cancelled() => {}
        }
    })
}

impl ActionRunner {
    async fn run(&self, step: Action, state: JobState, known: SubjectState) -> ActionResult {
        // Each in a box of its own: thousands may be under way, and the usual ones are small.
        match step {
            Action::Publish(event, outcome) => {
                Box::pin(self.say(state, known, EventBody::Job(event, outcome))).await
            }
            Action::ClosePrevious => Box::pin(self.close_earlier(&state)).await,
            Action::VerifyDeleted => Box::pin(self.verify(&state)).await,
            Action::Retire => Box::pin(self.retire(&state)).await,
            Action::PublishPending(telling) => Box::pin(self.say(state, known, telling.into())).await,
            Action::AwaitPrevious => Box::pin(self.await_earlier(&state)).await,
        }
    }
}
