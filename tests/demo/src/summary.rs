//! The end: what the streams hold of each request, and whether that is what it should be.

use crate::event::{Event, Outcome};
use crate::screen::Screen;
use crate::{JOBS, Scene, act_one};

/// What must have become of a Job.
pub(crate) struct Expected {
    pub(crate) job: &'static str,
    /// The outcome's result.
    pub(crate) result: &'static str,
    /// And its reason, where there is one.
    pub(crate) reason: Option<&'static str>,
}

impl Expected {
    fn is(&self, outcome: &Outcome) -> bool {
        let reason = self.reason.is_none() || self.reason == outcome.reason.as_deref();
        self.result == outcome.result && reason
    }
}

/// Counts what is stored; whether all is as it should be.
pub(crate) async fn tell(scene: &Scene) -> Result<bool, String> {
    let Scene { screen, client, audience, .. } = scene;
    let stored = client.stored().await?;
    let heard = audience.board.borrow().clone();
    screen.title("What JOB_STATUS and JOB_REJECTED hold");
    screen.plain(&format!("    {:<16} {:>6}  {:>8}  the last one", "Job", "events", "outcomes"));
    let mut complete = true;
    for expected in JOBS.into_iter().flatten() {
        let events = stored.get(expected.job).map(Vec::as_slice).unwrap_or_default();
        complete &= job(screen, expected, events, heard.outcomes.get(expected.job));
    }
    let jobs = JOBS.into_iter().flatten().count();
    let good = stored.len() == jobs;
    screen.verdict(good, &format!("{jobs} requests for Jobs, and so many Jobs: {}", stored.len()));
    complete &= good;
    Ok(rejection(scene, &heard.rejections).await && complete)
}

/// One Job: exactly one outcome, the last of its events, as expected, and heard by whoever watched.
fn job(screen: &Screen, expected: &Expected, events: &[Event], heard: Option<&Outcome>) -> bool {
    let outcomes = events.iter().filter(|event| event.outcome.is_some()).count();
    let last = events.last().and_then(|event| event.outcome.as_ref());
    let good = outcomes == 1 && [last, heard].into_iter().all(|seen| seen.is_some_and(|it| expected.is(it)));
    let shown = |outcome: Option<&Outcome>| {
        outcome.map_or_else(|| "no outcome".to_owned(), |it| format!("{}: {}", it.result, it.why()))
    };
    screen
        .verdict(good, &format!("{:<16} {:>6}  {outcomes:>8}  {}", expected.job, events.len(), shown(last)));
    if !good {
        let reason = expected.reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
        screen.plain(&format!(
            "      missing: exactly one outcome, the last event, heard as well: {}{reason}; heard: {}",
            expected.result,
            shown(heard)
        ));
    }
    good
}

/// The bad request: its notice was heard, and its payload is kept.
async fn rejection(scene: &Scene, heard: &[Event]) -> bool {
    let Scene { screen, client, .. } = scene;
    let letter = match client.last_dead_letter().await {
        Ok(letter) => letter,
        Err(error) => {
            screen.verdict(false, &error);
            return false;
        }
    };
    let is_heard = heard.iter().any(|event| event.reason.as_deref() == Some(letter.error.as_str()));
    let good = is_heard && letter.payload == act_one::BAD_REQUEST;
    screen.verdict(good, &format!("the bad request is kept, as {}: {}", letter.error, letter.payload));
    if !good {
        let found = if is_heard { "another payload" } else { "no notice with that reason was heard" };
        screen.plain(&format!("      missing: the payload {}; {found}", act_one::BAD_REQUEST));
    }
    good
}
