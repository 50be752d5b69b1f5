//! The status of a Job: the JSON text, and what the dispatcher decodes from it.
//!
//! It is decoded once, when the watch delivers the Job. All copies of a state share the result.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use crate::contract::{
    event::{Outcome, OutcomeResult, Stall},
    text,
};

/// A `batch/v1` `JobStatus`.
///
/// The dispatcher holds some states of every unfinished Job, so they are kept small: the status as
/// text takes a fraction of the memory of a tree of values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobStatus(Arc<Decoded>);

#[derive(Debug, PartialEq, Eq)]
struct Decoded {
    text: Box<str>,
    truncated: bool,
    succeeded: i32,
    failed: i32,
    start_time: Option<Box<str>>,
    final_condition: Option<Box<FinalCondition>>,
    suspension: Option<Box<Stall>>,
}

/// The condition `Complete` or `Failed` with status `True`.
#[derive(Debug, PartialEq, Eq)]
struct FinalCondition {
    result: OutcomeResult,
    reason: Option<String>,
    message: Option<String>,
    finish_time: Option<String>,
}

impl JobStatus {
    /// The JSON text, verbatim.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0.text
    }

    /// The status of a published event, which may have been shortened.
    #[must_use]
    pub fn published(status: Value, truncated: bool) -> Self {
        Self::decode(&status, truncated)
    }

    /// Whether the status is a shortened one: it was read from a published event.
    #[must_use]
    pub fn is_truncated(&self) -> bool {
        self.0.truncated
    }

    /// The JSON object. This parses the text.
    #[must_use]
    pub fn value(&self) -> Value {
        serde_json::from_str(&self.0.text).unwrap_or_default()
    }

    /// The result by the Job's conditions; `None` while it has no final condition.
    ///
    /// The number of failed pods does not decide: with `backoffLimit: 3` it may be three or four.
    /// The interim conditions `SuccessCriteriaMet` and `FailureTarget` are not final (Kubernetes,
    /// "Jobs", "Job termination").
    #[must_use]
    pub fn result(&self) -> Option<OutcomeResult> {
        self.0.final_condition.as_ref().map(|condition| condition.result)
    }

    /// The outcome of the final condition, or `None` if the Job has no final condition yet.
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome> {
        let condition = self.0.final_condition.as_ref()?;
        Some(Outcome {
            reason: condition.reason.clone(),
            message: condition.message.clone(),
            finish_time: condition.finish_time.clone(),
            ..self.outcome_without_condition(condition.result)
        })
    }

    /// An outcome with the counts and the start time only.
    pub(super) fn outcome_without_condition(&self, result: OutcomeResult) -> Outcome {
        Outcome {
            result,
            reason: None,
            message: None,
            succeeded: self.0.succeeded,
            failed: self.0.failed,
            start_time: self.0.start_time.as_deref().map(str::to_owned),
            finish_time: None,
            attempts: Vec::new(),
            attempts_omitted: 0,
            stall: None,
        }
    }

    /// The number of pods that ended.
    #[must_use]
    pub fn pods_ended(&self) -> u32 {
        let count = |pods: i32| u32::try_from(pods).unwrap_or(0);
        count(self.0.succeeded).saturating_add(count(self.0.failed))
    }

    /// Why the Job is suspended, by its condition; `None` if it is not.
    #[must_use]
    pub fn suspension(&self) -> Option<&Stall> {
        self.0.suspension.as_deref()
    }
}

impl From<Value> for JobStatus {
    fn from(status: Value) -> Self {
        Self::decode(&status, false)
    }
}

impl JobStatus {
    fn decode(status: &Value, truncated: bool) -> Self {
        let view = StatusView::deserialize(status).unwrap_or_default();
        let finish_time = view.completion_time;
        let final_condition =
            view.conditions.into_iter().find_map(|condition| condition.into_final(finish_time));
        Self(Arc::new(Decoded {
            succeeded: view.succeeded,
            failed: view.failed,
            start_time: view.start_time.map(Box::from),
            final_condition: final_condition.map(Box::new),
            suspension: suspension(status).map(Box::new),
            truncated,
            text: if status.is_null() { "{}".into() } else { status.to_string().into() },
        }))
    }
}

/// The fields of a `JobStatus` that an outcome needs.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct StatusView<'a> {
    #[serde(borrow)]
    conditions: Vec<Condition<'a>>,
    succeeded: i32,
    failed: i32,
    start_time: Option<&'a str>,
    completion_time: Option<&'a str>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Condition<'a> {
    #[serde(rename = "type")]
    type_: &'a str,
    status: &'a str,
    reason: Option<&'a str>,
    message: Option<&'a str>,
    last_transition_time: Option<&'a str>,
}

impl Condition<'_> {
    fn into_final(self, completion_time: Option<&str>) -> Option<FinalCondition> {
        let result = match (self.type_, self.status) {
            ("Complete", "True") => OutcomeResult::Complete,
            ("Failed", "True") => OutcomeResult::Failed,
            _ => return None,
        };
        Some(FinalCondition {
            result,
            reason: text::reason(self.reason),
            message: text::message(self.message),
            finish_time: completion_time.or(self.last_transition_time).map(str::to_owned),
        })
    }
}

fn suspension(status: &Value) -> Option<Stall> {
    let conditions = status.get("conditions")?.as_array()?;
    let is =
        |condition: &Value, key: &str, value: &str| condition.get(key).is_some_and(|found| found == value);
    let condition = conditions.iter().find(|c| is(c, "type", "Suspended") && is(c, "status", "True"))?;
    let value = |key: &str| condition.get(key).and_then(Value::as_str);
    Some(Stall {
        reason: text::reason(value("reason")).unwrap_or_else(|| "JobSuspended".to_owned()),
        message: text::message(value("message")).unwrap_or_else(|| "Job suspended".to_owned()),
    })
}
