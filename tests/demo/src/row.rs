//! A Job as one line: its name, what it does, which attempt it is at, for how long. Pure.

use std::time::{Duration, Instant};

use crate::event::{Event, Outcome, Status};

/// What the screen knows of a Job.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) job: String,
    status: Status,
    outcome: Option<Outcome>,
    since: Instant,
    /// The time of the outcome.
    end: Option<Instant>,
}

/// How a line is to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    Plain,
    Good,
    Bad,
    Odd,
}

impl Row {
    pub(crate) fn new(job: String, event: &Event, now: Instant) -> Self {
        let mut row = Self { job, status: Status::default(), outcome: None, since: now, end: None };
        row.take(event, now);
        row
    }

    /// The newest event of this Job.
    pub(crate) fn take(&mut self, event: &Event, now: Instant) {
        // Not every template of event has a status.
        if let Some(status) = event.status() {
            self.status = status.clone();
        }
        if let Some(outcome) = &event.outcome {
            self.outcome = Some(outcome.clone());
            self.end = Some(now);
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.outcome.is_some()
    }

    pub(crate) fn mood(&self) -> Mood {
        match self.outcome.as_ref().map(|outcome| outcome.result.as_str()) {
            None => Mood::Plain,
            Some("Complete") => Mood::Good,
            Some("Failed") => Mood::Bad,
            Some(_) => Mood::Odd,
        }
    }

    /// The line without its time: two that are the same need not be shown twice.
    pub(crate) fn state(&self) -> String {
        let attempts = match self.status.attempts() {
            0 => String::new(),
            1 => "1 attempt".to_owned(),
            many => format!("{many} attempts"),
        };
        match &self.outcome {
            Some(outcome) => format!("{:<11} {attempts:<10}", outcome.result),
            None => format!("{:<11} {attempts:<10}", self.status.doing()),
        }
    }

    /// Why it ended, in words.
    pub(crate) fn why(&self) -> String {
        self.outcome.as_ref().map(Outcome::why).unwrap_or_default()
    }

    /// How long it has gone on, or went on.
    pub(crate) fn elapsed(&self, now: Instant) -> Duration {
        self.end.unwrap_or(now).saturating_duration_since(self.since)
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
        events.iter().for_each(|value| row.take(&event(value), start + Duration::from_secs(2)));
        row
    }

    #[test]
    fn a_job_is_told_by_its_pods() {
        for (status, state) in [
            (json!({}), "created                "),
            (json!({"active": 1}), "starting    1 attempt "),
            (json!({"active": 1, "ready": 1}), "running     1 attempt "),
            (json!({"active": 1, "ready": 1, "failed": 2}), "running     3 attempts"),
            (json!({"failed": 2}), "waiting     2 attempts"),
            (json!({"uncountedTerminatedPods": {"failed": ["x"]}}), "waiting     1 attempt "),
            (json!({"uncountedTerminatedPods": {"succeeded": ["x"]}}), "ending      1 attempt "),
            (
                json!({"failed": 4, "conditions": [{"type": "FailureTarget", "status": "True"}]}),
                "ending      4 attempts",
            ),
        ] {
            let row = row(&[json!({"status": status})]);
            assert_eq!(row.state().trim_end(), state.trim_end(), "{status}");
            assert_eq!((row.mood(), row.is_over()), (Mood::Plain, false));
        }
    }

    #[test]
    fn an_outcome_stays_with_its_reason_in_words() {
        let outcome = json!({"result": "Failed", "reason": "BackoffLimitExceeded", "message": "too often"});
        let row = row(&[
            json!({"status": {"active": 1}}),
            json!({"type": "OUTCOME", "status": {"failed": 4}, "outcome": outcome}),
        ]);
        assert_eq!(row.state(), "Failed      4 attempts");
        assert_eq!(row.why(), "too often (BackoffLimitExceeded)");
        assert_eq!((row.mood(), row.is_over()), (Mood::Bad, true));
        assert_eq!(row.elapsed(Instant::now() + Duration::from_secs(99)), Duration::from_secs(2));
    }

    #[test]
    fn an_event_without_a_status_changes_nothing() {
        let row = row(&[json!({"status": {"active": 1}}), json!({"type": "ATTEMPT"})]);
        assert_eq!(row.state().trim_end(), "starting    1 attempt");
    }
}
