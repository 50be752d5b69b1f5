//! The relevant part of a Job's spec, with the API server's defaults.

use k8s_openapi::{api::batch::v1::Job, jiff::SignedDuration};

/// The value of `spec.managedBy` for this controller, as is its absence.
pub(super) const MANAGER: &str = "kubernetes.io/job-controller";
const INDEXED: &str = "Indexed";
const ON_FAILURE: &str = "OnFailure";
/// The `podReplacementPolicy` that replaces a pod only after it has ended.
const REPLACE_FAILED: &str = "Failed";
const DEFAULT_BACKOFF_LIMIT: i32 = 6;

/// The fields of a Job's spec that the rules use.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Spec {
    pub(super) parallelism: i32,
    /// With `None`, the Job completes when one pod has succeeded and no pod is active.
    pub(super) completions: Option<i32>,
    pub(super) backoff_limit: i32,
    pub(super) deadline: Option<SignedDuration>,
    pub(super) suspended: bool,
    pub(super) indexed: bool,
    pub(super) restarts_on_failure: bool,
    pub(super) replaces_failed_only: bool,
    pub(super) managed_elsewhere: bool,
}

impl Spec {
    pub(super) fn from_job(job: &Job) -> Self {
        let spec = job.spec.clone().unwrap_or_default();
        let is = |value: &Option<String>, wanted: &str| value.as_deref() == Some(wanted);
        let completions = match spec.parallelism {
            None => Some(spec.completions.unwrap_or(1)),
            Some(_) => spec.completions,
        };
        let pod = spec.template.spec.unwrap_or_default();
        Self {
            parallelism: spec.parallelism.unwrap_or(1).max(0),
            completions,
            backoff_limit: spec.backoff_limit.unwrap_or(DEFAULT_BACKOFF_LIMIT),
            deadline: spec.active_deadline_seconds.map(SignedDuration::from_secs),
            suspended: spec.suspend.unwrap_or(false),
            indexed: is(&spec.completion_mode, INDEXED) && completions.is_some(),
            restarts_on_failure: is(&pod.restart_policy, ON_FAILURE),
            replaces_failed_only: is(&spec.pod_replacement_policy, REPLACE_FAILED),
            managed_elsewhere: spec.managed_by.is_some_and(|manager| manager != MANAGER),
        }
    }
}
