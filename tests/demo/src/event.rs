//! A status event as a client reads it: what the contract says of it, and nothing of the dispatcher's own code.

use serde::Deserialize;

/// One message on `jobs.*.status.>`.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Event {
    #[serde(rename = "type")]
    event: String,
    /// Absent where a request that was refused has no valid one.
    pub(crate) name: Option<String>,
    status: Option<Status>,
    pub(crate) outcome: Option<Outcome>,
    /// Of `REJECTED` only.
    pub(crate) reason: Option<String>,
    /// Of `REJECTED` only.
    pub(crate) message: Option<String>,
}

/// The part of a `JobStatus` that is shown.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Status {
    pub(crate) active: u32,
    ready: u32,
    succeeded: u32,
    failed: u32,
    uncounted_terminated_pods: Uncounted,
    conditions: Vec<Condition>,
}

/// Pods that have ended and are not in the counts yet.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Uncounted {
    succeeded: Vec<String>,
    failed: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
struct Condition {
    status: String,
}

/// How a Job ended.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) result: String,
    pub(crate) reason: Option<String>,
    message: Option<String>,
    #[serde(default)]
    pub(crate) attempts: Vec<Attempt>,
}

/// How a pod of the Job ended.
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

    /// The Job's status, where this event has one.
    pub(crate) fn status(&self) -> Option<&Status> {
        self.status.as_ref()
    }
}

impl Status {
    /// Pods that were started, so far as they are counted.
    pub(crate) fn attempts(&self) -> usize {
        let Uncounted { succeeded, failed } = &self.uncounted_terminated_pods;
        let counted = [self.active, self.succeeded, self.failed].into_iter().map(|count| count as usize);
        counted.sum::<usize>() + succeeded.len() + failed.len()
    }

    /// What the Job does, in a word.
    pub(crate) fn doing(&self) -> &'static str {
        let uncounted = &self.uncounted_terminated_pods;
        let is_concluding = self.conditions.iter().any(|condition| condition.status == "True");
        match (self.active, self.ready) {
            _ if is_concluding || self.succeeded > 0 || !uncounted.succeeded.is_empty() => "ending",
            (1.., 1..) => "running",
            (1.., 0) => "starting",
            (0, _) if self.failed > 0 || !uncounted.failed.is_empty() => "waiting",
            (0, _) => "created",
        }
    }
}

impl Outcome {
    /// Why, in words, and in Kubernetes' own word.
    pub(crate) fn why(&self) -> String {
        match (&self.message, &self.reason) {
            (Some(message), Some(reason)) => format!("{message} ({reason})"),
            (Some(text), None) | (None, Some(text)) => text.clone(),
            (None, None) => String::new(),
        }
    }
}
