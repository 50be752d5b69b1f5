//! Syncs one Job: reads it and its pods, applies the rules and executes their plan.

use std::{future::Future, time::Duration};

use k8s_openapi::{
    api::{
        batch::v1::{Job, JobStatus},
        core::v1::{ObjectReference, Pod},
    },
    jiff::Timestamp,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions},
};
use serde_json::json;
use tokio::time::timeout;

use super::{
    conditions::expires_at,
    events::{Note, Recorder},
    pods,
    rules::{self, Plan, PodDeletion},
};

/// The time limit of one API call.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// When to sync a Job again.
pub(super) enum SyncResult {
    /// After this time; `None` waits for the next watch event.
    RequeueAfter(Option<Duration>),
    /// After a back-off.
    Failed,
}

#[derive(Debug, thiserror::Error)]
enum SyncError {
    #[error("{0}")]
    Api(#[from] kube::Error),
    #[error("API call timed out")]
    Timeout,
    #[error("failed to create a pod: {0}")]
    CreatePod(kube::Error),
}

impl SyncError {
    /// Whether the plan was based on an outdated object.
    fn is_stale(&self) -> bool {
        matches!(self, Self::Api(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found())
    }
}

/// Syncs Jobs.
#[derive(Clone)]
pub(super) struct JobSyncer {
    client: Client,
    events: Recorder,
    time_scale: f64,
}

impl JobSyncer {
    pub(super) fn new(client: Client, time_scale: f64) -> Self {
        Self { events: Recorder::new(client.clone(), "job-controller"), client, time_scale }
    }

    /// Syncs one Job once.
    pub(super) async fn sync(&self, namespace: &str, name: &str) -> SyncResult {
        match self.sync_job(namespace, name).await {
            Ok(wait) => SyncResult::RequeueAfter(wait),
            Err(error) if error.is_stale() => SyncResult::RequeueAfter(Some(Duration::ZERO)),
            Err(error) => {
                tracing::warn!(namespace, name, %error, "Job sync failed, retrying");
                SyncResult::Failed
            }
        }
    }

    async fn sync_job(&self, namespace: &str, name: &str) -> Result<Option<Duration>, SyncError> {
        let jobs: Api<Job> = Api::namespaced(self.client.clone(), namespace);
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let job = call(jobs.get_opt(name)).await?;
        let selector = ListParams::default().labels(&format!("{}={name}", pods::LABEL_NAME));
        let found = call(api.list(&selector)).await?.items;
        let uid = job.as_ref().and_then(ResourceExt::uid).unwrap_or_default();
        let (owned, others): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|pod| pods::is_owned_by(pod, &uid));
        self.release_others(&api, &others).await?;
        let Some(job) = job else {
            return Ok(None);
        };
        let now = Timestamp::now();
        if expires_at(&job).is_some_and(|end| end <= now) {
            let delete =
                DeleteParams { preconditions: Some(precondition(uid)), ..DeleteParams::foreground() };
            call(jobs.delete(name, &delete)).await?;
            return Ok(None);
        }
        let plan = rules::reconcile(&job, &owned, now, self.time_scale);
        let next = plan.requeue_at.into_iter().chain(expires_at(&job)).min();
        let wait = match plan.changes() {
            true => Some(Duration::ZERO),
            false => next.map(|next| Duration::try_from(next.duration_since(now)).unwrap_or_default()),
        };
        self.execute(&job, &jobs, &api, &owned, plan).await?;
        Ok(wait)
    }

    /// Removes the finalizer of pods that this Job does not own, and deletes those whose Job is
    /// gone.
    async fn release_others(&self, api: &Api<Pod>, others: &[Pod]) -> Result<(), SyncError> {
        for pod in others {
            if pods::is_tracked(pod) {
                remove_finalizer(api, pod).await?;
            }
            if pods::owner(pod).is_some() && !pods::is_deleting(pod) {
                ignore_stale(call(api.delete(pods::name(pod), &DeleteParams::default())).await)?;
            }
        }
        Ok(())
    }

    async fn execute(
        &self,
        job: &Job,
        jobs: &Api<Job>,
        api: &Api<Pod>,
        owned: &[Pod],
        plan: Plan,
    ) -> Result<(), SyncError> {
        let subject = job.object_ref(&());
        for deletion in &plan.delete {
            self.delete_pod(api, owned, deletion, &subject).await?;
        }
        let (missing, error) = self.create_pods(api, &plan.create, &subject).await;
        if let Some(mut status) = plan.status {
            status.active = status.active.map(|active| active - missing).filter(|active| *active > 0);
            write_status(jobs, job, status).await?;
        }
        for pod in owned.iter().filter(|pod| plan.release.iter().any(|name| name == pods::name(pod))) {
            remove_finalizer(api, pod).await?;
        }
        for note in plan.notes {
            self.events.record(&subject, note).await;
        }
        error.map_or(Ok(()), Err)
    }

    async fn delete_pod(
        &self,
        api: &Api<Pod>,
        owned: &[Pod],
        deletion: &PodDeletion,
        subject: &ObjectReference,
    ) -> Result<(), SyncError> {
        let pod = owned.iter().find(|pod| deletion.release && pods::uid(pod) == deletion.uid);
        if let Some(pod) = pod {
            remove_finalizer(api, pod).await?;
        }
        let delete = DeleteParams {
            preconditions: Some(precondition(deletion.uid.clone())),
            ..DeleteParams::default()
        };
        ignore_stale(call(api.delete(&deletion.name, &delete)).await)?;
        self.events
            .record(subject, Note::normal("SuccessfulDelete", &format!("Deleted pod: {}", deletion.name)))
            .await;
        Ok(())
    }

    /// Creates pods until the first failure. Returns the number of missing pods and the error.
    async fn create_pods(
        &self,
        api: &Api<Pod>,
        wanted: &[Pod],
        subject: &ObjectReference,
    ) -> (i32, Option<SyncError>) {
        for (created, pod) in wanted.iter().enumerate() {
            let error = match call(api.create(&PostParams::default(), pod)).await {
                Ok(pod) => {
                    let note =
                        Note::normal("SuccessfulCreate", &format!("Created pod: {}", pods::name(&pod)));
                    self.events.record(subject, note).await;
                    continue;
                }
                Err(SyncError::Api(error)) => SyncError::CreatePod(error),
                Err(error) => error,
            };
            let note = Note::warning("FailedCreate", &format!("Error creating: {error}"));
            self.events.record(subject, note).await;
            return (i32::try_from(wanted.len() - created).unwrap_or(i32::MAX), Some(error));
        }
        (0, None)
    }
}

async fn call<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, SyncError> {
    Ok(timeout(CALL_TIMEOUT, request).await.map_err(|_| SyncError::Timeout)??)
}

/// Writes the status, unless the Job has changed since it was read.
async fn write_status(jobs: &Api<Job>, job: &Job, status: JobStatus) -> Result<(), SyncError> {
    let job = Job { metadata: job.metadata.clone(), spec: job.spec.clone(), status: Some(status) };
    call(jobs.replace_status(&job.name_any(), &PostParams::default(), &job)).await?;
    Ok(())
}

/// Removes the tracking finalizer of a pod.
async fn remove_finalizer(api: &Api<Pod>, pod: &Pod) -> Result<(), SyncError> {
    let kept: Vec<_> = pod.finalizers().iter().filter(|finalizer| *finalizer != pods::FINALIZER).collect();
    let patch = json!({"metadata": {"uid": pods::uid(pod), "finalizers": kept}});
    ignore_stale(call(api.patch(pods::name(pod), &PatchParams::default(), &Patch::Merge(patch))).await)
}

/// Ignores errors about a pod that was removed or replaced.
fn ignore_stale<T>(result: Result<T, SyncError>) -> Result<(), SyncError> {
    match result {
        Ok(_) => Ok(()),
        Err(error) if error.is_stale() => Ok(()),
        Err(error) => Err(error),
    }
}

fn precondition(uid: String) -> Preconditions {
    Preconditions { uid: Some(uid), resource_version: None }
}
