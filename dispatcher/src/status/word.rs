//! What an event tells → the event on the wire, and its line in the log.

use super::{fit::fit, signs::Telling};
use crate::{
    contract::{
        event::{Attempt, EventType, Outcome, Stall, StatusEvent},
        job::JobState,
    },
    status::phase::Said,
};

/// What an event tells.
pub(super) enum Word {
    /// A state of the Job, or its outcome.
    Of(EventType, Option<Box<Outcome>>),
    /// How a pod ended.
    Attempt(Box<Attempt>),
    /// Why no pod runs.
    Stall(Stall),
}

impl From<Telling> for Word {
    fn from(telling: Telling) -> Self {
        match telling {
            Telling::Attempt(_, attempt) => Self::Attempt(attempt),
            Telling::Stall(stall) => Self::Stall(stall),
        }
    }
}

impl Word {
    pub(super) fn event(&self) -> EventType {
        match self {
            Self::Of(event, _) => *event,
            Self::Attempt(_) => EventType::Attempt,
            Self::Stall(_) => EventType::Stalled,
        }
    }

    /// With no more attempts than go into a message of that many bytes.
    pub(super) fn fitting(mut self, max_payload: usize) -> Self {
        if let Self::Of(_, Some(outcome)) = &mut self {
            fit(outcome, max_payload);
        }
        self
    }

    /// About the bytes of the event of a state.
    pub(super) fn weight(&self, state: &JobState) -> usize {
        let attempts: &[Attempt] = match self {
            Self::Of(_, Some(outcome)) => &outcome.attempts,
            Self::Attempt(attempt) => std::slice::from_ref(&**attempt),
            Self::Of(_, None) | Self::Stall(_) => &[],
        };
        let texts = attempts.iter().flat_map(|attempt| [&attempt.log_tail, &attempt.message]).flatten();
        state.status.text().len() + texts.map(String::len).sum::<usize>()
    }
}

/// The event of a Job in that state.
pub(super) fn message(state: &JobState, said: &Said, word: &Word, time: &str) -> StatusEvent {
    let (mut attempt, mut stall, mut outcome) = (None, None, None);
    match word {
        Word::Of(_, told) => outcome = told.as_deref().cloned(),
        Word::Attempt(told) => attempt = Some((**told).clone()),
        Word::Stall(told) => stall = Some(told.clone()),
    }
    StatusEvent {
        event: said.event,
        kind: state.kind.clone(),
        name: state.name.clone(),
        namespace: state.namespace.clone(),
        uid: state.uid.clone(),
        request_id: state.request_id.clone(),
        request_seq: state.request_seq,
        resource_version: said.resource_version.to_string(),
        time: time.to_owned(),
        status: state.status.value(),
        attempt,
        stall,
        outcome,
    }
}

/// The lines of the ancestor: one for each change, one for the end.
pub(super) fn log(event: &StatusEvent) {
    let (kind, job, uid) = (event.kind.as_ref(), event.name.as_ref(), event.uid.as_str());
    let (event_type, status) = (event.event.as_str(), event.status.to_string());
    if let Some(Attempt { pod, exit_code, reason, .. }) = &event.attempt {
        let reason = reason.as_deref().unwrap_or_default();
        tracing::info!(kind, job, uid, event = event_type, pod, exit_code, reason, "a pod has ended");
        return;
    }
    if let Some(Stall { reason, message }) = &event.stall {
        tracing::info!(kind, job, uid, event = event_type, reason, message, "no pod runs");
        return;
    }
    match &event.outcome {
        None => tracing::info!(
            kind,
            job,
            uid,
            event = event_type,
            "Job \"{job}\" status responded by watcher: {status}"
        ),
        Some(outcome) => tracing::info!(
            kind,
            job,
            uid,
            event = event_type,
            result = %outcome.result,
            reason = outcome.reason.as_deref().unwrap_or_default(),
            "Watching is over gracefully."
        ),
    }
}
