//! The status events on `jobs.<template>.status.<name>`: one JSON object per message.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::contract::{
    names::{JobName, RequestId, TemplateName},
    submitter::Submitter,
};

/// The type of a status event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum EventType {
    /// The Job exists: the first event of each Job.
    Added,
    /// The Job changed.
    Modified,
    /// The Job was deleted.
    Deleted,
    /// A pod of the Job ended.
    Attempt,
    /// No pod of the Job can run.
    Stalled,
    /// The Job ended: its last event.
    Outcome,
}

impl EventType {
    /// Every type.
    pub const ALL: [Self; 6] =
        [Self::Added, Self::Modified, Self::Deleted, Self::Attempt, Self::Stalled, Self::Outcome];

    /// The value on the wire, in the body and in the header `Job-Event`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
            Self::Attempt => "ATTEMPT",
            Self::Stalled => "STALLED",
            Self::Outcome => "OUTCOME",
        }
    }

    /// Parses the value of the header `Job-Event`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|event| event.as_str() == text)
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One status event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StatusEvent {
    /// The type of the event.
    #[serde(rename = "type")]
    pub event: EventType,
    /// The name of the Job's template.
    pub template: TemplateName,
    /// The Job's name.
    pub name: JobName,
    /// The Job's namespace.
    pub namespace: String,
    /// The Job's uid. Names can be reused, uids cannot.
    pub uid: String,
    /// The id of the request that created the Job.
    pub request_id: RequestId,
    /// The sequence of that request in `JOBS`.
    pub request_seq: u64,
    /// On `ADDED` only: the hash of the template's version that the Job was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template_hash: Option<String>,
    /// Who submitted that request, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub submitter: Option<Submitter>,
    /// The Job's resourceVersion that this event reports.
    pub resource_version: String,
    /// The time at which the event was made, RFC 3339 in UTC.
    pub time: String,
    /// The `batch/v1` `JobStatus`, verbatim unless `statusTruncated` is true. `ATTEMPT` and `STALLED`
    /// repeat the last published one.
    pub status: Value,
    /// Whether `status` is shortened, because the event would not fit into one message. Counts, times,
    /// and the type and status of the final condition are kept.
    #[serde(default, skip_serializing_if = "is_false")]
    #[schemars(default)]
    pub status_truncated: bool,
    /// On `ATTEMPT` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<Attempt>,
    /// On `STALLED` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stall: Option<Stall>,
    /// On `OUTCOME` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
}

/// How a pod of a Job ended. A field is absent if Kubernetes does not report it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Attempt {
    /// The pod's name.
    pub pod: String,
    /// The pod's node; absent if the pod was never bound to one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The container that the fields below describe; only if the pod has more than one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// The container's exit code; absent if no container exited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The signal that ended the container, if the container runtime reports it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// The reason in Kubernetes' terms: `Completed`, `Error`, `OOMKilled`, `Evicted`, `Deleted` and
    /// others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The container's termination message or the pod's status message; at most 4 KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The container's memory limit, as a Kubernetes quantity, if memory may be the cause.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_limit: Option<String>,
    /// The time at which the container started, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
    /// The time at which it ended, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<String>,
    /// The end of the container's log, if the pod failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_tail: Option<String>,
}

/// Why no pod of a Job can run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Stall {
    /// The reason: `Unschedulable`, `ErrImagePull`, `QuotaExceeded` and others.
    pub reason: String,
    /// The message of Kubernetes; at most 4 KiB.
    pub message: String,
}

/// How a Job ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// The result.
    pub result: OutcomeResult,
    /// The final condition's `reason`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The final condition's `message`; at most 4 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The number of pods that succeeded.
    pub succeeded: i32,
    /// The number of pods that failed. The result does not depend on it.
    pub failed: i32,
    /// The Job's `startTime`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<String>,
    /// The Job's `completionTime`, or else the time of its final condition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finish_time: Option<String>,
    /// How the pods ended, in this order. If there are too many, the oldest are omitted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<Attempt>,
    /// The number of pods that ended and are not in `attempts`: too many, or deleted before the
    /// dispatcher observed them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub attempts_omitted: u32,
    /// Why no pod could run, if that was still the case at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stall: Option<Stall>,
}

impl Outcome {
    /// The number of pods that ended, by the Job's status.
    #[must_use]
    pub fn pods_ended(&self) -> u32 {
        let count = |pods: i32| u32::try_from(pods).unwrap_or(0);
        count(self.succeeded).saturating_add(count(self.failed))
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(value: &bool) -> bool {
    !*value
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// The result of a Job, by its conditions alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum OutcomeResult {
    /// The condition `Complete` is `True`.
    Complete,
    /// The condition `Failed` is `True`.
    Failed,
    /// The Job was deleted before it had a final condition.
    Deleted,
    /// The Job was cancelled and deleted before it had a final condition.
    Cancelled,
}

impl OutcomeResult {
    /// Every result.
    pub const ALL: [Self; 4] = [Self::Complete, Self::Failed, Self::Deleted, Self::Cancelled];

    /// The value on the wire, in the Job's outcome label and in the metric's label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "Complete",
            Self::Failed => "Failed",
            Self::Deleted => "Deleted",
            Self::Cancelled => "Cancelled",
        }
    }
}

impl fmt::Display for OutcomeResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcome_result_serializes_as_its_name() {
        for result in OutcomeResult::ALL {
            assert_eq!(serde_json::to_value(result).unwrap(), result.as_str());
        }
    }

    #[test]
    fn event_type_is_the_same_in_header_and_body() {
        for event in EventType::ALL {
            assert_eq!(serde_json::to_value(event).unwrap(), event.as_str());
            assert_eq!(EventType::parse(event.as_str()), Some(event));
        }
        assert_eq!(EventType::parse("BOOKMARK"), None);
    }
}
