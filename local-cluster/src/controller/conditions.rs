//! The conditions of a Job with Kubernetes' reasons and messages, and the TTL of a finished Job.

use k8s_openapi::{
    api::batch::v1::{Job, JobCondition, JobStatus},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::{SignedDuration, Timestamp},
};

pub(super) const COMPLETE: &str = "Complete";
pub(super) const FAILED: &str = "Failed";
pub(super) const SUCCESS_CRITERIA_MET: &str = "SuccessCriteriaMet";
pub(super) const FAILURE_TARGET: &str = "FailureTarget";
pub(super) const SUSPENDED: &str = "Suspended";

/// The result of a Job.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct JobResult {
    pub(super) success: bool,
    pub(super) reason: String,
    pub(super) message: String,
}

impl JobResult {
    pub(super) fn success() -> Self {
        Self::new(true, "CompletionsReached", "Reached expected number of succeeded pods")
    }

    pub(super) fn backoff_limit() -> Self {
        Self::new(false, "BackoffLimitExceeded", "Job has reached the specified backoff limit")
    }

    pub(super) fn deadline() -> Self {
        Self::new(false, "DeadlineExceeded", "Job was active longer than specified deadline")
    }

    fn new(success: bool, reason: &str, message: &str) -> Self {
        Self { success, reason: reason.to_owned(), message: message.to_owned() }
    }

    /// The result that an interim condition of the Job announces.
    pub(super) fn from_interim(status: &JobStatus) -> Option<Self> {
        let (success, condition) = find(status, SUCCESS_CRITERIA_MET)
            .map(|condition| (true, condition))
            .or_else(|| find(status, FAILURE_TARGET).map(|condition| (false, condition)))?;
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        Some(Self { success, reason: text(&condition.reason), message: text(&condition.message) })
    }

    /// The condition that announces the result while pods are still terminating.
    pub(super) fn interim_condition(&self) -> &'static str {
        if self.success { SUCCESS_CRITERIA_MET } else { FAILURE_TARGET }
    }

    /// The condition of the finished Job.
    pub(super) fn final_condition(&self) -> &'static str {
        if self.success { COMPLETE } else { FAILED }
    }
}

fn find<'a>(status: &'a JobStatus, kind: &str) -> Option<&'a JobCondition> {
    let mut conditions = status.conditions.iter().flatten();
    conditions.find(|condition| condition.type_ == kind && condition.status == "True")
}

/// The transition time of the final condition.
pub(super) fn finished_at(job: &Job) -> Option<Timestamp> {
    let status = job.status.as_ref()?;
    let last = find(status, COMPLETE).or_else(|| find(status, FAILED))?;
    last.last_transition_time.as_ref().map(|time| time.0)
}

/// When the TTL of a finished Job expires; `None` without a TTL, and for a terminating Job.
pub(super) fn expires_at(job: &Job) -> Option<Timestamp> {
    if job.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let ttl = job.spec.as_ref()?.ttl_seconds_after_finished?;
    finished_at(job)?.checked_add(SignedDuration::from_secs(ttl.into())).ok()
}

/// Whether the Job has a final condition.
pub(super) fn is_finished(job: &Job) -> bool {
    job.status.as_ref().is_some_and(|status| find(status, COMPLETE).or(find(status, FAILED)).is_some())
}

/// Sets a condition and returns whether it changed. An absent condition is not set to `False`.
pub(super) fn set(
    status: &mut JobStatus,
    kind: &str,
    value: bool,
    (reason, message): (&str, &str),
    now: Timestamp,
) -> bool {
    let value = if value { "True" } else { "False" };
    let is_false = value == "False";
    let conditions = status.conditions.get_or_insert_default();
    let new = JobCondition {
        type_: kind.to_owned(),
        status: value.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_probe_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    };
    let changed = match conditions.iter_mut().find(|condition| condition.type_ == kind) {
        Some(condition) if condition.status == value => false,
        Some(condition) => {
            *condition = new;
            true
        }
        None if is_false => false,
        None => {
            conditions.push(new);
            true
        }
    };
    if conditions.is_empty() {
        status.conditions = None;
    }
    changed
}
