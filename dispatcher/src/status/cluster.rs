//! What publishing status events needs of Kubernetes. The watch side implements it.

use dispatcher_core::contract::{job::JobState, names::TemplateName};
use futures::future::BoxFuture;

/// The cluster, as the action runner uses it. Every call has a deadline.
pub(crate) trait Cluster: Send + Sync + 'static {
    /// Whether the Job with this uid is deleted. A Job that only lost its labels is not deleted, and
    /// gets them back.
    fn is_deleted(&self, job: &JobState) -> BoxFuture<'_, Result<bool, String>>;

    /// Whether a cancellation of the deleted Job is recorded.
    fn is_cancelled(&self, job: &JobState) -> BoxFuture<'_, Result<bool, String>>;

    /// Patches the TTL and the outcome label onto a Job whose outcome is stored.
    fn retire(&self, job: &JobState) -> BoxFuture<'_, Result<(), String>>;

    /// The tail of a container's log, if the template allows it and the kubelet still has it.
    fn log_tail(
        &self,
        template: &TemplateName,
        pod: &str,
        container: &str,
    ) -> BoxFuture<'static, Option<String>>;
}
