//! The status events on `jobs.<template>.status.<name>`: one JSON object per message.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::contract::names::{JobName, RequestId, TemplateName};

/// What an event tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum EventType {
    /// The Job is there: the first event of each Job.
    Added,
    /// The Job changed.
    Modified,
    /// The Job was deleted.
    Deleted,
    /// A pod of the Job ended.
    Attempt,
    /// No pod of the Job runs, and why.
    Stalled,
    /// Final; nothing follows of this Job.
    Outcome,
}

impl EventType {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Added, Self::Modified, Self::Deleted, Self::Attempt, Self::Stalled, Self::Outcome];

    /// The word on the wire, also in the header `Job-Event`.
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

    /// Reads the word of the header `Job-Event`.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|event| event.as_str() == word)
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
    /// What it tells.
    #[serde(rename = "type")]
    pub event: EventType,
    /// The Job's template: the name of its template.
    pub template: TemplateName,
    /// The Job's name.
    pub name: JobName,
    /// The Job's namespace.
    pub namespace: String,
    /// The Job's uid: names recur, uids do not.
    pub uid: String,
    /// The identity of the request that made the Job.
    pub request_id: RequestId,
    /// The sequence of that request in `JOBS`.
    pub request_seq: u64,
    /// The Job's resourceVersion that this event tells of.
    pub resource_version: String,
    /// When the event was made, RFC 3339 in UTC.
    pub time: String,
    /// The `batch/v1` `JobStatus`, verbatim; on `ATTEMPT` and `STALLED` the one that was last said.
    pub status: Value,
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

/// How a pod of a Job ended. What Kubernetes does not tell is absent; nothing is inferred.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Attempt {
    /// The pod's name.
    pub pod: String,
    /// The node that it ran on; absent where it was never bound to one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Which container the following tells of; only where the pod has more than one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// The container's exit code; absent where none ended by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The signal that ended it, where the container runtime tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// One word of Kubernetes': `Completed`, `Error`, `OOMKilled`, `Evicted`, `Deleted` and others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The container's termination message, or what Kubernetes says of the pod; at most 4 KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The container's limit of memory, as a Kubernetes quantity, where memory may have been the matter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_limit: Option<String>,
    /// When the container started, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
    /// When it ended, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<String>,
    /// The end of the container's log, of a pod that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_tail: Option<String>,
}

/// Why no pod of a Job runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Stall {
    /// One word: `Unschedulable`, `ErrImagePull`, `QuotaExceeded` and others.
    pub reason: String,
    /// Kubernetes' own text.
    pub message: String,
}

/// How a Job ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// The result.
    pub result: OutcomeResult,
    /// The final condition's `reason`, verbatim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The final condition's `message`, verbatim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Pods that succeeded.
    pub succeeded: i32,
    /// Pods that failed. Told, never judged by.
    pub failed: i32,
    /// When the Job controller first saw the Job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<String>,
    /// When it ended: `completionTime`, else the time of the final condition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finish_time: Option<String>,
    /// How its pods ended, in that order; the oldest are left out where there are too many.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<Attempt>,
    /// Pods that ended and are not in `attempts`: too many, or gone before they were read.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub attempts_omitted: u32,
    /// Why no pod of it ran, where that was still so at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stall: Option<Stall>,
}

impl Outcome {
    /// How many pods have ended, by the Job's status.
    pub fn pods_ended(&self) -> u32 {
        u32::try_from(self.succeeded.max(0))
            .unwrap_or(0)
            .saturating_add(u32::try_from(self.failed.max(0)).unwrap_or(0))
    }
}

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
    /// The Job vanished before it had a final condition.
    Deleted,
    /// The same, and it was to be cancelled.
    Cancelled,
}

impl OutcomeResult {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Complete, Self::Failed, Self::Deleted, Self::Cancelled];

    /// The word on the wire, also the metric's label.
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
    fn the_word_of_a_result_is_the_one_on_the_wire() {
        for result in OutcomeResult::ALL {
            assert_eq!(serde_json::to_value(result).unwrap(), result.as_str());
        }
    }

    #[test]
    fn the_word_of_a_type_is_the_same_in_header_and_body() {
        for event in EventType::ALL {
            assert_eq!(serde_json::to_value(event).unwrap(), event.as_str());
            assert_eq!(EventType::parse(event.as_str()), Some(event));
        }
        assert_eq!(EventType::parse("BOOKMARK"), None);
    }
}
