//! The status events on `jobs.<kind>.status.<name>`: one JSON object per message.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::names::{JobName, Kind, RequestId};

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
    /// Final; nothing follows of this Job.
    Outcome,
}

impl EventType {
    /// The word on the wire, also in the header `Job-Event`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
            Self::Outcome => "OUTCOME",
        }
    }

    /// Reads the word of the header `Job-Event`.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Added, Self::Modified, Self::Deleted, Self::Outcome].into_iter().find(|t| t.as_str() == word)
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
    /// The Job's kind: the name of its template.
    pub kind: Kind,
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
    /// The `batch/v1` `JobStatus`, verbatim.
    pub status: Value,
    /// On `OUTCOME` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
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

impl fmt::Display for OutcomeResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Complete => "Complete",
            Self::Failed => "Failed",
            Self::Deleted => "Deleted",
            Self::Cancelled => "Cancelled",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_of_a_type_is_the_same_in_header_and_body() {
        for event in [EventType::Added, EventType::Modified, EventType::Deleted, EventType::Outcome] {
            assert_eq!(serde_json::to_value(event).unwrap(), event.as_str());
            assert_eq!(EventType::parse(event.as_str()), Some(event));
        }
        assert_eq!(EventType::parse("BOOKMARK"), None);
    }
}
