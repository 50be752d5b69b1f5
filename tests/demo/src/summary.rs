//! Compares the stored events of all Jobs with the expected outcomes.

use crate::event::{Event, Outcome};
use crate::screen::Screen;
use crate::{Demo, JOBS, requests};

/// The expected outcome of a Job.
pub(crate) struct ExpectedJob {
    pub(crate) name: &'static str,
    pub(crate) result: &'static str,
    pub(crate) reason: Option<&'static str>,
}

impl ExpectedJob {
    fn matches(&self, outcome: &Outcome) -> bool {
        let reason_matches = self.reason.is_none() || self.reason == outcome.reason.as_deref();
        self.result == outcome.result && reason_matches
    }
}

/// Prints a check for each Job, and returns whether all pass.
pub(crate) async fn check(demo: &Demo) -> Result<bool, String> {
    let Demo { screen, client, watcher, .. } = demo;
    let stored = client.stored_events().await?;
    let received = watcher.board.borrow().clone();
    screen.title("Summary: JOB_STATUS and JOB_REJECTED");
    screen.plain(&format!("    {:<16} {:>6}  {:>8}  last event", "Job", "events", "outcomes"));
    let mut passed = true;
    for expected in JOBS.into_iter().flatten() {
        let events = stored.get(expected.name).map(Vec::as_slice).unwrap_or_default();
        passed &= check_job(screen, expected, events, received.outcomes.get(expected.name));
    }
    let jobs = JOBS.into_iter().flatten().count();
    let count_matches = stored.len() == jobs;
    screen.check(count_matches, &format!("{jobs} valid requests, {} Jobs", stored.len()));
    passed &= count_matches;
    Ok(check_rejection(demo, &received.rejections).await && passed)
}

/// A Job has exactly one outcome, as its last event, and the subscription received it.
fn check_job(screen: &Screen, expected: &ExpectedJob, events: &[Event], received: Option<&Outcome>) -> bool {
    let outcomes = events.iter().filter(|event| event.outcome.is_some()).count();
    let last = events.last().and_then(|event| event.outcome.as_ref());
    let passed = outcomes == 1
        && [last, received].into_iter().all(|outcome| outcome.is_some_and(|it| expected.matches(it)));
    let describe = |outcome: Option<&Outcome>| {
        outcome.map_or_else(|| "no outcome".to_owned(), |it| format!("{}: {}", it.result, it.explanation()))
    };
    screen.check(
        passed,
        &format!("{:<16} {:>6}  {outcomes:>8}  {}", expected.name, events.len(), describe(last)),
    );
    if !passed {
        let reason = expected.reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
        screen.plain(&format!(
            "      expected one outcome {}{reason} as the last event; received: {}",
            expected.result,
            describe(received)
        ));
    }
    passed
}

/// The invalid request is stored with its payload, and its notice was received.
async fn check_rejection(demo: &Demo, notices: &[Event]) -> bool {
    let Demo { screen, client, .. } = demo;
    let dead_letter = match client.last_dead_letter().await {
        Ok(dead_letter) => dead_letter,
        Err(error) => {
            screen.check(false, &error);
            return false;
        }
    };
    let is_received = notices.iter().any(|event| event.reason.as_deref() == Some(dead_letter.error.as_str()));
    let passed = is_received && dead_letter.payload == requests::INVALID_REQUEST;
    screen.check(
        passed,
        &format!(
            "the invalid request is stored in JOB_REJECTED as {}: {}",
            dead_letter.error, dead_letter.payload
        ),
    );
    if !passed {
        let problem = if is_received {
            "another payload was stored"
        } else {
            "no notice with that reason was received"
        };
        screen.plain(&format!("      expected the payload {}; {problem}", requests::INVALID_REQUEST));
    }
    passed
}
