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
    if history.at_rest && history.jobs_stream_left > 0 {
        let left = history.jobs_stream_left;
        found.push(Violation::LeftInQueue(format!("{left} messages are still in JOBS")));
    }
    found
}

/// Stops the test where a promise is broken, with every violation on a line of its own.
///
/// # Panics
/// Where [`check`] finds anything.
pub fn assert_kept(history: &History) {
    let found = check(history);
    let lines: Vec<_> = found.iter().map(ToString::to_string).collect();
    assert!(found.is_empty(), "{} violations in {}:\n{}", found.len(), history.summary(), lines.join("\n"));
}

#[cfg(test)]
mod tests;
