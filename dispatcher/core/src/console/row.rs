//! One row of the board: what the status events of a Job say, in a few bounded fields.

use serde::{Deserialize, Serialize};

use crate::contract::{
    event::{EventType, OutcomeResult, Stall},
    names::{JobName, RequestId, TemplateName},
    text,
};

/// The longest time, uid and resource text of a row, in characters.
const MAX_TEXT: usize = 64;

/// What a Job does, in the words of Kubernetes and of the outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum RowState {
    /// The Job exists, and no pod of it is ready.
    Pending,
    /// The Job is suspended.
    Suspended,
    /// No pod of it can run.
    Stalled,
    /// A pod of it is ready.
    Running,
    /// The outcome `Complete`.
    Complete,
    /// The outcome `Failed`.
    Failed,
    /// The outcome `Deleted`.
    Deleted,
    /// The outcome `Cancelled`.
    Cancelled,
}

impl RowState {
    /// Whether the Job has ended.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Complete | Self::Failed | Self::Deleted | Self::Cancelled)
    }
}

impl From<OutcomeResult> for RowState {
    fn from(result: OutcomeResult) -> Self {
        match result {
            OutcomeResult::Complete => Self::Complete,
            OutcomeResult::Failed => Self::Failed,
            OutcomeResult::Deleted => Self::Deleted,
            OutcomeResult::Cancelled => Self::Cancelled,
        }
    }
}

/// A row of the board.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// Identifies the row: the sequence of the first event of the Job that the board has read.
    pub id: u64,
    /// The sequence of the last event of the Job.
    pub sequence: u64,
    /// The template.
    pub template: TemplateName,
    /// The Job's name.
    pub name: JobName,
    /// The Job's uid.
    pub uid: String,
    /// The id of its request.
    pub request_id: RequestId,
    /// What the Job does.
    pub state: RowState,
    /// The reason of the stall or of the outcome.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How many pods have ended.
    pub attempts: u32,
    /// The time of the first event, RFC 3339.
    pub created: String,
    /// The time of the last event, RFC 3339.
    pub updated: String,
    /// How many `ATTEMPT` events the board has read.
    #[serde(skip)]
    attempt_events: u32,
}

/// The fields of a status event that a row needs. Parsing skips the others.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Brief {
    #[serde(rename = "type")]
    event: EventType,
    pub(super) template: TemplateName,
    pub(super) name: JobName,
    uid: String,
    request_id: RequestId,
    time: String,
    #[serde(default)]
    status: Option<BriefStatus>,
    #[serde(default)]
    stall: Option<Stall>,
    #[serde(default)]
    outcome: Option<BriefOutcome>,
}

#[derive(Debug, Default, Deserialize)]
struct BriefStatus {
    ready: Option<i64>,
    succeeded: Option<i64>,
    failed: Option<i64>,
    conditions: Option<Vec<BriefCondition>>,
}

#[derive(Debug, Deserialize)]
struct BriefCondition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

#[derive(Debug, Deserialize)]
struct BriefOutcome {
    result: OutcomeResult,
    reason: Option<String>,
    succeeded: i64,
    failed: i64,
}

impl BriefStatus {
    fn is_suspended(&self) -> bool {
        let mut conditions = self.conditions.iter().flatten();
        conditions.any(|condition| condition.kind == "Suspended" && condition.status == "True")
    }
}

impl Brief {
    /// The fields of an event; `None` if the message is no status event.
    pub(super) fn parse(payload: &[u8]) -> Option<Self> {
        serde_json::from_slice(payload).ok()
    }

    /// The uid as a row has it.
    pub(super) fn uid(&self) -> String {
        bounded(&self.uid)
    }

    /// The row of the first event of a Job.
    pub(super) fn first(&self, sequence: u64) -> Row {
        let row = Row {
            id: sequence,
            sequence,
            template: self.template.clone(),
            name: self.name.clone(),
            uid: self.uid(),
            request_id: self.request_id.clone(),
            state: RowState::Pending,
            reason: None,
            attempts: 0,
            created: bounded(&self.time),
            updated: bounded(&self.time),
            attempt_events: 0,
        };
        self.next(sequence, row)
    }

    /// The row after this event.
    pub(super) fn next(&self, sequence: u64, before: Row) -> Row {
        let attempt_events =
            before.attempt_events.saturating_add(u32::from(self.event == EventType::Attempt));
        let attempts = self.ended().max(attempt_events).max(before.attempts);
        let (state, reason) = self.state(&before, attempts > before.attempts);
        Row { sequence, state, reason, attempts, updated: bounded(&self.time), attempt_events, ..before }
    }

    /// The state and its reason. `advanced`: another pod has ended since the last event.
    fn state(&self, before: &Row, advanced: bool) -> (RowState, Option<String>) {
        if let Some(outcome) = &self.outcome {
            return (outcome.result.into(), text::reason(outcome.reason.as_deref()));
        }
        if let Some(stall) = &self.stall {
            return (RowState::Stalled, text::reason(Some(&stall.reason)));
        }
        let status = self.status.as_ref();
        let is_ready = status.and_then(|status| status.ready).unwrap_or(0) > 0;
        match before.state {
            _ if is_ready => (RowState::Running, None),
            // No event says that a stall is over, but a pod that ran does.
            RowState::Stalled if !advanced => (RowState::Stalled, before.reason.clone()),
            _ if status.is_some_and(BriefStatus::is_suspended) => (RowState::Suspended, None),
            _ => (RowState::Pending, None),
        }
    }

    /// How many pods have ended, by the counts of the event.
    fn ended(&self) -> u32 {
        let sum = |succeeded: i64, failed: i64| {
            u32::try_from(succeeded.max(0).saturating_add(failed.max(0))).unwrap_or(u32::MAX)
        };
        let of_status = self
            .status
            .as_ref()
            .map_or(0, |status| sum(status.succeeded.unwrap_or(0), status.failed.unwrap_or(0)));
        let of_outcome = self.outcome.as_ref().map_or(0, |outcome| sum(outcome.succeeded, outcome.failed));
        of_status.max(of_outcome)
    }
}

fn bounded(text: &str) -> String {
    text.chars().take(MAX_TEXT).collect()
}
