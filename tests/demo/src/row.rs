//! One line for a Job: name, state, attempts, elapsed time and explanation. Pure.

use std::time::{Duration, Instant};

use crate::event::{Event, Outcome, Status};

/// The displayed state of a Job.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) job: String,
    status: Status,
    outcome: Option<Outcome>,
    start: Instant,
    /// When the outcome was received.
    end: Option<Instant>,
}

/// Selects the colour of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Severity {
    Running,
    Complete,
    Failed,
    Other,
}

impl Row {
    pub(crate) fn new(job: String, event: &Event, now: Instant) -> Self {
        let mut row = Self { job, status: Status::default(), outcome: None, start: now, end: None };
        row.apply(event, now);
        row
    }

    /// Applies the next event of this Job.
    pub(crate) fn apply(&mut self, event: &Event, now: Instant) {
        // Not every event has a status.
        if let Some(status) = event.status() {
            self.status = status.clone();
        }
        if let Some(outcome) = &event.outcome {
            self.outcome = Some(outcome.clone());
            self.end = Some(now);
        }
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.outcome.is_some()
    }

    pub(crate) fn severity(&self) -> Severity {
        match self.outcome.as_ref().map(|outcome| outcome.result.as_str()) {
            None => Severity::Running,
            Some("Complete") => Severity::Complete,
            Some("Failed") => Severity::Failed,
            Some(_) => Severity::Other,
        }
    }

    /// The line without the elapsed time. Without a terminal, only changes of it are printed.
    pub(crate) fn state(&self) -> String {
        let attempts = match self.status.attempts() {
            0 => String::new(),
            1 => "1 attempt".to_owned(),
            count => format!("{count} attempts"),
        };
        match &self.outcome {
            Some(outcome) => format!("{:<11} {attempts:<10}", outcome.result),
            None => format!("{:<11} {attempts:<10}", self.status.summary()),
        }
    }

    /// The explanation of the outcome; empty before it.
    pub(crate) fn explanation(&self) -> String {
        self.outcome.as_ref().map(Outcome::explanation).unwrap_or_default()
    }

    /// The time since the first event, up to the outcome.
    pub(crate) fn elapsed(&self, now: Instant) -> Duration {
        self.end.unwrap_or(now).saturating_duration_since(self.start)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn event(more: &Value) -> Event {
        let mut event = json!({"type": "MODIFIED", "name": "a"});
        event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(event).unwrap()
    }

    fn row(events: &[Value]) -> Row {
        let start = Instant::now();
        let mut row = Row::new("a".to_owned(), &event(&json!({"status": {}})), start);
        events.iter().for_each(|value| row.apply(&event(value), start + Duration::from_secs(2)));
        row
    }

    #[test]
    fn running_job_is_summarized_by_its_pods() {
        for (status, state) in [
            (json!({}), "created                "),
            (json!({"active": 1}), "starting    1 attempt "),
            (json!({"active": 1, "ready": 1}), "running     1 attempt "),
            (json!({"active": 1, "ready": 1, "failed": 2}), "running     3 attempts"),
            (json!({"failed": 2}), "backoff     2 attempts"),
            (json!({"uncountedTerminatedPods": {"failed": ["x"]}}), "backoff     1 attempt "),
            (json!({"uncountedTerminatedPods": {"succeeded": ["x"]}}), "finishing   1 attempt "),
            (
                json!({"failed": 4, "conditions": [{"type": "FailureTarget", "status": "True"}]}),
                "finishing   4 attempts",
            ),
        ] {
            let row = row(&[json!({"status": status})]);
            assert_eq!(row.state().trim_end(), state.trim_end(), "{status}");
            assert_eq!((row.severity(), row.is_finished()), (Severity::Running, false));
        }
    }

    #[test]
    fn outcome_is_shown_with_its_explanation_and_final_time() {
        let outcome = json!({"result": "Failed", "reason": "BackoffLimitExceeded", "message": "too often"});
        let row = row(&[
            json!({"status": {"active": 1}}),
            json!({"type": "OUTCOME", "status": {"failed": 4}, "outcome": outcome}),
        ]);
        assert_eq!(row.state(), "Failed      4 attempts");
        assert_eq!(row.explanation(), "too often (BackoffLimitExceeded)");
        assert_eq!((row.severity(), row.is_finished()), (Severity::Failed, true));
        assert_eq!(row.elapsed(Instant::now() + Duration::from_secs(99)), Duration::from_secs(2));
    }

    #[test]
    fn event_without_status_keeps_the_state() {
        let row = row(&[json!({"status": {"active": 1}}), json!({"type": "ATTEMPT"})]);
        assert_eq!(row.state().trim_end(), "starting    1 attempt");
    }
}
