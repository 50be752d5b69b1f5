//! Proof of the promises 1 to 4 of the contract over a whole run, seen from outside only.
//!
//! A [`Recorder`] watches from before the first request to the end: what was published and how that was answered, every
//! Job that the cluster ever had, every message of the streams, what a plain subscriber saw. [`check`] is pure: a
//! [`History`] in, [`Violation`]s out.
//!
//! ```text
//! publish ── answers ─────────────┐
//! own watch ── every Job ─────────┤
//! plain subscriber ── what it saw ┼─▶ History ── check ─▶ violations
//! JOB_STATUS, JOB_REJECTED, JOBS ─┘
//! ```

pub mod delays;
mod event;
pub mod history;
mod jobs;
mod live;
mod order;
pub mod publish;
pub mod recorder;
mod requests;
mod reuse;
pub mod snapshot;
mod streams;
pub mod violation;
mod watch;

pub use delays::Delays;
pub use history::{Expect, History};
pub use publish::PublishError;
pub use recorder::Recorder;
pub use violation::Violation;

/// Every promise that the history breaks; empty where all hold.
#[must_use]
pub fn check(history: &History) -> Vec<Violation> {
    let mut found = Vec::new();
    let jobs = history.all_jobs();
    requests::check(history, &jobs, &mut found);
    reuse::check(history, &jobs, &mut found);
    jobs::check(history, &jobs, &mut found);
    live::check(history, &mut found);
    left(history, &mut found);
    found
}

/// What is left in the queue is not lost. Which requests they are is known where no more are missing than are left.
fn left(history: &History, found: &mut Vec<Violation>) {
    let left = history.jobs_stream_left;
    if !history.at_rest || left == 0 {
        return;
    }
    let missing: Vec<_> =
        found.extract_if(.., |violation| matches!(violation, Violation::LostRequest(_))).collect();
    let mut text = format!("{left} messages are still in JOBS");
    if u64::try_from(missing.len()).is_ok_and(|missing| missing <= left) {
        let names: Vec<_> = missing.iter().map(Violation::text).collect();
        text = format!("{text}: {}", names.join("; "));
    } else {
        found.extend(missing);
    }
    found.push(Violation::LeftInQueue(text));
}

/// Stops the test where a promise is broken, with every violation on a line of its own.
///
/// # Panics
/// Where [`check`] finds anything.
pub fn assert_guarantees(history: &History) {
    let found = check(history);
    let lines: Vec<_> = found.iter().map(ToString::to_string).collect();
    assert!(found.is_empty(), "{} violations in {}:\n{}", found.len(), history.summary(), lines.join("\n"));
}

#[cfg(test)]
mod tests;
