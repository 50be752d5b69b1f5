//! A status event as a client reads it: what the contract says of it, and nothing of the dispatcher's own code.

use serde::Deserialize;

/// One message on `jobs.simple.status.>`.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Event {
    /// `ADDED`, `MODIFIED`, `DELETED`, `OUTCOME` or `REJECTED`.
    #[serde(rename = "type")]
    pub(crate) event: String,
    /// Absent where a request that was refused has no valid one.
    name: Option<String>,
    #[serde(default)]
    pub(crate) status: Status,
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
    pub(crate) succeeded: u32,
    pub(crate) failed: u32,
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
    #[serde(rename = "type")]
    kind: String,
    status: String,
    reason: Option<String>,
}

/// How a Job ended.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) result: String,
    pub(crate) reason: Option<String>,
    pub(crate) message: Option<String>,
}

/// How an event is to look.
pub(crate) enum Mood {
    New,
    Plain,
    Good,
    Bad,
    Odd,
}

impl Event {
    pub(crate) fn job(&self) -> &str {
        self.name.as_deref().unwrap_or("(no Job)")
    }

    pub(crate) fn is_rejection(&self) -> bool {
        self.event == "REJECTED"
    }

    pub(crate) fn mood(&self) -> Mood {
        match (self.event.as_str(), self.outcome.as_ref().map(|outcome| outcome.result.as_str())) {
            ("ADDED", _) => Mood::New,
            (_, Some("Complete")) => Mood::Good,
            (_, Some("Failed")) => Mood::Bad,
            ("REJECTED" | "DELETED", _) | (_, Some(_)) => Mood::Odd,
            _ => Mood::Plain,
        }
    }

    /// The last column: the outcome, the reason of a rejection, or what the Job is doing, given what it did before.
    pub(crate) fn what(&self, before: Option<&Status>) -> String {
        match &self.outcome {
            Some(outcome) => outcome.to_string(),
            None if self.is_rejection() => {
                with(self.reason.as_deref().unwrap_or_default(), None, self.message.as_deref())
            }
            None => self.status.what(before),
        }
    }
}

impl Status {
    fn what(&self, before: Option<&Status>) -> String {
        let uncounted = &self.uncounted_terminated_pods;
        let ran = before.is_some_and(|before| before.ready > 0);
        let condition = self.conditions.iter().rev().find(|condition| condition.status == "True");
        match condition {
            Some(condition) => with(&condition.kind, condition.reason.as_deref(), None),
            None if self.ready > 0 => "its pod runs".to_owned(),
            None if self.active > 0 && ran => "its pod has run".to_owned(),
            None if self.active > 0 => "its pod starts".to_owned(),
            None if !uncounted.failed.is_empty() => "its pod has failed".to_owned(),
            None if !uncounted.succeeded.is_empty() => "its pod has succeeded".to_owned(),
            None if self.failed > 0 => "waits before the next attempt".to_owned(),
            None => "created".to_owned(),
        }
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&with(&self.result, self.reason.as_deref(), self.message.as_deref()))
    }
}

/// `Word Reason: message`, of what there is.
fn with(word: &str, reason: Option<&str>, message: Option<&str>) -> String {
    let reason = reason.map(|reason| format!(" {reason}")).unwrap_or_default();
    let message = message.map(|message| format!(": {message}")).unwrap_or_default();
    format!("{word}{reason}{message}")
}
