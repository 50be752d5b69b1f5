//! Checks guarantees 1 to 4 of the protocol over a whole run, as seen by clients.
//!
//! A [`Recorder`] records from before the first request to the end: every publish and its ack,
//! every Job, every stored message, and what a plain subscriber received. [`check`] is pure: a
//! [`History`] in, [`Violation`]s out.
//!
//! ```text
//! publishes and acks ──────────────┐
//! watch of Jobs ───────────────────┤
//! plain subscriber ────────────────┼─▶ History ── check ─▶ violations
//! JOB_STATUS, JOB_REJECTED, JOBS ──┘
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

/// All violations in a history; empty if every guarantee holds.
#[must_use]
pub fn check(history: &History) -> Vec<Violation> {
    let mut found = Vec::new();
    let jobs = history.all_jobs();
    requests::check(history, &jobs, &mut found);
    reuse::check(history, &jobs, &mut found);
    jobs::check(history, &jobs, &mut found);
    live::check(history, &mut found);
    check_queue(history, &mut found);
    found
}

/// Requests that are still queued are not lost. They can be named if no more requests are missing
/// than are queued.
fn check_queue(history: &History, found: &mut Vec<Violation>) {
    let queued = history.queued_requests;
    if !history.complete || queued == 0 {
        return;
    }
    let missing: Vec<_> =
        found.extract_if(.., |violation| matches!(violation, Violation::LostRequest(_))).collect();
    let mut text = format!("{queued} messages are still in JOBS");
    if u64::try_from(missing.len()).is_ok_and(|missing| missing <= queued) {
        let names: Vec<_> = missing.iter().map(Violation::text).collect();
        text = format!("{text}: {}", names.join("; "));
    } else {
        found.extend(missing);
    }
    found.push(Violation::QueuedRequests(text));
}

/// Checks the guarantees and lists every violation.
///
/// # Panics
/// If [`check`] finds any.
pub fn assert_guarantees(history: &History) {
    let found = check(history);
    let lines: Vec<_> = found.iter().map(ToString::to_string).collect();
    assert!(found.is_empty(), "{} violations in {}:\n{}", found.len(), history.summary(), lines.join("\n"));
}

#[cfg(test)]
mod tests;
