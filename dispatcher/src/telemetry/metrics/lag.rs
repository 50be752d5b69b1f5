//! How long after it was so in Kubernetes an event is stored. Pure.
//!
//! Kubernetes says when only of ends: of a Job (`completionTime`, or the time of its final condition) and of a container
//! (`finishedAt`); in whole seconds, cut off, so that a lag looks up to a second longer than it is. Of a Job that vanished,
//! and of most changes, it does not say when.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use dispatcher_core::contract::event::StatusEvent;

/// The lag of an event that is stored now; `None` where Kubernetes has not said when. Never below 0, whatever the clocks
/// say.
pub(super) fn of(event: &StatusEvent, now: Timestamp) -> Option<Duration> {
    let outcome = event.outcome.as_ref().and_then(|outcome| outcome.finish_time.as_deref());
    let attempt = event.attempt.as_ref().and_then(|attempt| attempt.finished_at.as_deref());
    let ended: Timestamp = outcome.or(attempt)?.parse().ok()?;
    Some(Duration::try_from(now.duration_since(ended)).unwrap_or(Duration::ZERO))
}
