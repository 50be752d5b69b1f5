//! What publishing status events needs of Kubernetes. The watch side implements it.
//!
//! An error of a call means that Kubernetes is not reachable or does not permit the call at all, and
//! makes the component not ready. The refusal of a change of one Job does not.

use dispatcher_core::{
    contract::{job::JobState, names::TemplateName},
    status::pod_observation::PodState,
};
use futures::future::BoxFuture;

/// Whether a Job still exists.
#[derive(Debug)]
pub(crate) enum Deletion {
    /// The Job is deleted. Contains the uid of the Job that has the name now.
    Deleted(Option<String>),
    /// The Job exists, and the watch observes it.
    Exists,
    /// The Job exists in this state. Its labels or annotations were changed, and Kubernetes refuses
    /// to restore them, so that the watch does not observe it.
    Unrestored(Box<JobState>),
}

/// The result of a change of a Job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// The change is made, or the Job is deleted.
    Made,
    /// Kubernetes refuses this change of this Job. The refusal is reported.
    Refused,
}

/// The cluster, as the action runner uses it. Every call has a deadline.
pub(crate) trait Cluster: Send + Sync + 'static {
    /// Whether the Job with this uid is deleted. A Job that only left the selector of the watch is not
    /// deleted: it is retired, or its labels and annotations are restored.
    fn is_deleted(&self, job: &JobState) -> BoxFuture<'_, Result<Deletion, String>>;

    /// Whether a cancellation of the deleted Job is recorded.
    fn is_cancelled(&self, job: &JobState) -> BoxFuture<'_, Result<bool, String>>;

    /// Patches the TTL and the outcome label onto a Job whose outcome is stored at `sequence`.
    fn retire(&self, job: &JobState, sequence: u64) -> BoxFuture<'_, Result<Change, String>>;

    /// Reports that `JOB_STATUS` refuses an event of the Job for this reason.
    fn report_unpublished(&self, job: &JobState, reason: &str) -> BoxFuture<'_, ()>;

    /// The ended pods that exist of the Job with this uid. Empty if they cannot be listed in time.
    fn ended_pods(&self, uid: &str) -> BoxFuture<'static, Vec<PodState>>;

    /// The tail of a container's log, if the template allows it and the kubelet still has it.
    fn log_tail(
        &self,
        template: &TemplateName,
        pod: &str,
        container: &str,
    ) -> BoxFuture<'static, Option<String>>;
}
