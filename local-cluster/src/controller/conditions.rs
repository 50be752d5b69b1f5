//! The conditions of a Job, with Kubernetes' reasons and messages.

use k8s_openapi::{
    api::batch::v1::{Job, JobCondition, JobStatus},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};

pub(super) const COMPLETE: &str = "Complete";
pub(super) const FAILED: &str = "Failed";
pub(super) const SUCCESS_CRITERIA_MET: &str = "SuccessCriteriaMet";
pub(super) const FAILURE_TARGET: &str = "FailureTarget";
pub(super) const SUSPENDED: &str = "Suspended";

/// How a Job ends.
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

    /// The result that an interim condition of the Job has fixed.
    pub(super) fn from_interim(status: &JobStatus) -> Option<Self> {
        let (success, condition) = find(status, SUCCESS_CRITERIA_MET)
            .map(|condition| (true, condition))
            .or_else(|| find(status, FAILURE_TARGET).map(|condition| (false, condition)))?;
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        Some(Self { success, reason: text(&condition.reason), message: text(&condition.message) })
    }

    /// The condition that announces the end while pods are still ending.
    pub(super) fn interim_condition(&self) -> &'static str {
        if self.success { SUCCESS_CRITERIA_MET } else { FAILURE_TARGET }
    }

    /// The condition that is the end.
    pub(super) fn final_condition(&self) -> &'static str {
        if self.success { COMPLETE } else { FAILED }
    }
}

fn find<'a>(status: &'a JobStatus, kind: &str) -> Option<&'a JobCondition> {
    let mut conditions = status.conditions.iter().flatten();
    conditions.find(|condition| condition.type_ == kind && condition.status == "True")
}

/// When the Job took its final condition, if it has.
pub(super) fn finished_at(job: &Job) -> Option<Timestamp> {
    let status = job.status.as_ref()?;
    let last = find(status, COMPLETE).or_else(|| find(status, FAILED))?;
    last.last_transition_time.as_ref().map(|time| time.0)
}

/// Whether the Job has a final condition.
pub(super) fn is_finished(job: &Job) -> bool {
    job.status.as_ref().is_some_and(|status| find(status, COMPLETE).or(find(status, FAILED)).is_some())
}

/// Sets a condition, and says whether that changed anything. One that was never `True` is not set to `False`.
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
    let wanted = JobCondition {
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
            *condition = wanted;
            true
        }
        None if is_false => false,
        None => {
            conditions.push(wanted);
            true
        }
    };
    if conditions.is_empty() {
        status.conditions = None;
    }
    changed
}
