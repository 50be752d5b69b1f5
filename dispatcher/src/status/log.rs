//! The log lines of published status events.

use dispatcher_core::contract::event::{Attempt, Stall, StatusEvent};

/// The lines of the ancestor: one for each change, one for the end.
pub(super) fn log(event: &StatusEvent) {
    let (template, job, uid) = (event.template.as_ref(), event.name.as_ref(), event.uid.as_str());
    let (event_type, status) = (event.event.as_str(), event.status.to_string());
    if let Some(Attempt { pod, exit_code, reason, .. }) = &event.attempt {
        let reason = reason.as_deref().unwrap_or_default();
        tracing::info!(template, job, uid, event = event_type, pod, exit_code, reason, "a pod has ended");
        return;
    }
    if let Some(Stall { reason, message }) = &event.stall {
        tracing::info!(template, job, uid, event = event_type, reason, message, "no pod runs");
        return;
    }
    match &event.outcome {
        None => tracing::info!(
            template,
            job,
            uid,
            event = event_type,
            "Job \"{job}\" status responded by watcher: {status}"
        ),
        Some(outcome) => tracing::info!(
            template,
            job,
            uid,
            event = event_type,
            result = %outcome.result,
            reason = outcome.reason.as_deref().unwrap_or_default(),
            "Watching is over gracefully."
        ),
    }
}
