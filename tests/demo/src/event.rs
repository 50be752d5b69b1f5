//! A status event as a client decodes it, by docs/protocol.md and without code of the dispatcher.

use serde::Deserialize;

/// One message on `jobs.*.status.>`.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Event {
    #[serde(rename = "type")]
    event: String,
    /// Absent in a rejection notice of a request without a valid name.
    pub(crate) name: Option<String>,
    status: Option<Status>,
    pub(crate) outcome: Option<Outcome>,
    /// In `REJECTED` only.
    pub(crate) reason: Option<String>,
    /// In `REJECTED` only.
    pub(crate) message: Option<String>,
}

/// The displayed part of a `JobStatus`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Status {
    pub(crate) active: u32,
    ready: u32,
    succeeded: u32,
    failed: u32,
    uncounted_terminated_pods: UncountedPods,
    conditions: Vec<Condition>,
}

/// Finished pods that the counts do not include yet.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct UncountedPods {
    succeeded: Vec<String>,
    failed: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
struct Condition {
    status: String,
}

/// The outcome of a Job.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) result: String,
    pub(crate) reason: Option<String>,
    message: Option<String>,
    #[serde(default)]
    pub(crate) attempts: Vec<Attempt>,
}

/// A finished pod of a Job.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Attempt {
    pub(crate) reason: Option<String>,
    pub(crate) exit_code: Option<i32>,
    pub(crate) memory_limit: Option<String>,
    pub(crate) log_tail: Option<String>,
}

impl Event {
    pub(crate) fn is_rejection(&self) -> bool {
        self.event == "REJECTED"
    }

    /// The status of the Job. `ATTEMPT` and `STALLED` events may have none.
    pub(crate) fn status(&self) -> Option<&Status> {
        self.status.as_ref()
    }
}

impl Status {
    /// The number of started pods.
    pub(crate) fn attempts(&self) -> usize {
        let UncountedPods { succeeded, failed } = &self.uncounted_terminated_pods;
        let counted = [self.active, self.succeeded, self.failed].into_iter().map(|count| count as usize);
        counted.sum::<usize>() + succeeded.len() + failed.len()
    }

    /// A one-word summary of the status.
    pub(crate) fn summary(&self) -> &'static str {
        let uncounted = &self.uncounted_terminated_pods;
        let is_final = self.conditions.iter().any(|condition| condition.status == "True");
        match (self.active, self.ready) {
            _ if is_final || self.succeeded > 0 || !uncounted.succeeded.is_empty() => "finishing",
            (1.., 1..) => "running",
            (1.., 0) => "starting",
            (0, _) if self.failed > 0 || !uncounted.failed.is_empty() => "backoff",
            (0, _) => "created",
        }
    }
}

impl Outcome {
    /// The message and the reason.
    pub(crate) fn explanation(&self) -> String {
        match (&self.message, &self.reason) {
            (Some(message), Some(reason)) => format!("{message} ({reason})"),
            (Some(text), None) | (None, Some(text)) => text.clone(),
            (None, None) => String::new(),
        }
    }
}
