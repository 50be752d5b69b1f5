//! The end: what the streams hold of each request, and whether that is what it should be.

use crate::audience::Board;
use crate::client::Client;
use crate::event::{Event, Outcome};
use crate::screen::Screen;
use crate::{act_one, act_two};

/// A Job, the result that it should have, and the reason and message that it must have.
type Expected = (&'static str, &'static str, Option<(&'static str, &'static str)>);

const BACKOFF: (&str, &str) = ("BackoffLimitExceeded", "Job has reached the specified backoff limit");

fn expected() -> Vec<Expected> {
    let mut all = vec![(act_one::GOOD, "Complete", None), (act_one::FAIL, "Failed", Some(BACKOFF))];
    all.extend(act_two::ENDING.map(|job| (job, "Complete", None)));
    all.push((act_two::DELETED, "Deleted", None));
    all
}

/// Prints the table; whether all is as it should be.
pub(crate) async fn tell(screen: &Screen, client: &Client, board: &Board) -> Result<bool, String> {
    let stored = client.stored().await?;
    screen.title("What JOB_STATUS and JOB_REJECTED hold");
    screen.plain(&format!("    {:<16} {:>6}  {:>8}  last", "Job", "events", "outcomes"));
    let mut complete = true;
    for expected in expected() {
        let events = stored.get(expected.0).map(Vec::as_slice).unwrap_or_default();
        complete &= job(screen, expected, events, board.outcomes.get(expected.0));
    }
    Ok(rejection(screen, client, board).await && complete)
}

fn job(screen: &Screen, expected: Expected, events: &[Event], heard: Option<&Outcome>) -> bool {
    let (name, result, reason) = expected;
    let outcomes = events.iter().filter(|event| event.outcome.is_some()).count();
    let last = events.last().and_then(|event| event.outcome.as_ref());
    let as_expected = |outcome: &Outcome| {
        let found = outcome.reason.as_deref().zip(outcome.message.as_deref());
        outcome.result == result && reason.is_none_or(|reason| found == Some(reason))
    };
    let good = outcomes == 1 && last.is_some_and(as_expected) && heard.is_some_and(as_expected);
    let said = last.map_or_else(|| "no outcome".to_owned(), ToString::to_string);
    screen.verdict(good, &format!("{name:<16} {:>6}  {outcomes:>8}  {said}", events.len()));
    if !good {
        let reason = reason.map(|(reason, message)| format!(" {reason}: {message}")).unwrap_or_default();
        let heard = heard.map_or_else(|| "none".to_owned(), ToString::to_string);
        screen.plain(&format!("      missing: exactly one OUTCOME, as the last event: {result}{reason}"));
        screen.plain(&format!("      heard: {heard}"));
    }
    good
}

/// The bad request: its notice was heard, and its payload is kept.
async fn rejection(screen: &Screen, client: &Client, board: &Board) -> bool {
    let command = "nats stream get JOB_REJECTED --last-for jobs.simple.rejected";
    let letter = match client.last_dead_letter().await {
        Ok(letter) => letter,
        Err(error) => {
            screen.verdict(false, &error);
            return false;
        }
    };
    let heard = board.rejections.iter().any(|event| event.reason.as_deref() == Some(letter.error.as_str()));
    let good = heard && letter.payload == act_one::BAD_REQUEST;
    screen.verdict(good, &format!("the bad request: payload {}, Job-Error {}", letter.payload, letter.error));
    if !good {
        let found = if heard { "another payload" } else { "no REJECTED notice with that reason" };
        screen
            .plain(&format!("      missing: the notice, and the payload {}; {found}", act_one::BAD_REQUEST));
    }
    screen.command(command, "");
    good
}
