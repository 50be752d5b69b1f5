//! The way into the reconciler, for the intake and for the watch side.

use dispatcher_core::{
    contract::{
        job::JobState,
        names::{JobName, RequestId, TemplateName},
    },
    status::{SubjectKey, SubjectState, pod_observation::PodObservation, reconcile::Source},
};
use tokio::sync::{mpsc, oneshot};

/// Sends observations to the reconciler.
#[derive(Clone)]
pub(crate) struct StatusHandle(mpsc::Sender<StatusInput>);

/// The reconciler has stopped: the service is shutting down.
#[derive(Debug, thiserror::Error)]
#[error("publishing of status events has stopped")]
pub(crate) struct Stopped;

/// An input of the reconciler.
pub(super) enum StatusInput {
    /// An observed Job.
    Job(Box<JobInput>),
    /// A question: the Job that was created for this request and has no stored event yet.
    PendingJob {
        /// The Job's subject.
        key: SubjectKey,
        /// The request.
        request_id: RequestId,
        /// Receives the answer.
        answer: oneshot::Sender<Option<JobState>>,
    },
    /// An observed pod or Kubernetes Event.
    Pod(PodObservation),
    /// A new list of the pods begins.
    PodsListing,
    /// The list of the pods is complete.
    PodsListed,
}

/// An observed Job, and the state of its subject if a scan has read it.
pub(super) struct JobInput {
    /// The Job.
    pub job: JobState,
    /// Who observed it.
    pub source: Source,
    /// The subject's last message, if it was read.
    pub subject: Option<SubjectState>,
    /// Receives a signal once an event of the Job is stored.
    pub stored: Option<oneshot::Sender<()>>,
}

impl StatusHandle {
    /// A handle that sends into this channel.
    pub(super) fn new(inputs: mpsc::Sender<StatusInput>) -> Self {
        Self(inputs)
    }

    /// Publishes the first event of a created Job and waits until it is stored. The caller sets the
    /// deadline.
    ///
    /// # Errors
    /// [`Stopped`] if the service is shutting down.
    pub(crate) async fn publish_added(
        &self,
        job: JobState,
        subject: Option<SubjectState>,
    ) -> Result<(), Stopped> {
        let (sender, stored) = oneshot::channel();
        let input = JobInput { job, source: Source::Create, subject, stored: Some(sender) };
        self.send(StatusInput::Job(Box::new(input))).await?;
        stored.await.map_err(|_| Stopped)
    }

    /// The Job that this process created for a request and that has no stored event yet. It may be
    /// deleted by now.
    ///
    /// # Errors
    /// [`Stopped`] if the service is shutting down.
    pub(crate) async fn pending_job(
        &self,
        template: &TemplateName,
        name: &JobName,
        request_id: &RequestId,
    ) -> Result<Option<JobState>, Stopped> {
        let (answer, found) = oneshot::channel();
        let key = (template.clone(), name.clone());
        self.send(StatusInput::PendingJob { key, request_id: request_id.clone(), answer }).await?;
        found.await.map_err(|_| Stopped)
    }

    /// Reports a Job that a watch or a list delivered.
    ///
    /// # Errors
    /// [`Stopped`] if the service is shutting down.
    pub(crate) async fn observe_job(
        &self,
        job: JobState,
        subject: Option<SubjectState>,
    ) -> Result<(), Stopped> {
        let input = JobInput { job, source: Source::Watch, subject, stored: None };
        self.send(StatusInput::Job(Box::new(input))).await
    }

    /// Reports a pod or a Kubernetes Event of a Job.
    ///
    /// # Errors
    /// [`Stopped`] if the service is shutting down.
    pub(crate) async fn observe_pod(&self, observation: PodObservation) -> Result<(), Stopped> {
        self.send(StatusInput::Pod(observation)).await
    }

    /// Reports that a new list of the pods begins. It will deliver every running pod again.
    ///
    /// # Errors
    /// [`Stopped`] if the service is shutting down.
    pub(crate) async fn pods_listing(&self) -> Result<(), Stopped> {
        self.send(StatusInput::PodsListing).await
    }

    /// Reports that the list of the pods is complete, so that outcomes stop waiting for it.
    ///
    /// # Errors
    /// [`Stopped`] if the service is shutting down.
    pub(crate) async fn pods_listed(&self) -> Result<(), Stopped> {
        self.send(StatusInput::PodsListed).await
    }

    async fn send(&self, input: StatusInput) -> Result<(), Stopped> {
        self.0.send(input).await.map_err(|_| Stopped)
    }
}
