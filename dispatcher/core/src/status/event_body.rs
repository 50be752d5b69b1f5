//! What an event tells → the event on the wire, and its line in the log.

use crate::status::{fit::fit, pod_tracker::PendingEvent};
use crate::{
    contract::{
        event::{Attempt, EventType, Outcome, Stall, StatusEvent},
        job::JobState,
    },
    status::reconcile::LastEvent,
};

/// What an event tells.
pub enum EventBody {
    /// A state of the Job, or its outcome.
    Of(EventType, Option<Box<Outcome>>),
    /// How a pod ended.
    Attempt(Box<Attempt>),
    /// Why no pod runs.
    Stall(Stall),
}

impl From<PendingEvent> for EventBody {
    fn from(telling: PendingEvent) -> Self {
        match telling {
            PendingEvent::Attempt(_, attempt) => Self::Attempt(attempt),
            PendingEvent::Stall(stall) => Self::Stall(stall),
        }
    }
}

impl EventBody {
    pub fn event(&self) -> EventType {
        match self {
            Self::Of(event, _) => *event,
            Self::Attempt(_) => EventType::Attempt,
            Self::Stall(_) => EventType::Stalled,
        }
    }

    /// With no more attempts than go into a message of that many bytes.
    pub fn fitting(mut self, max_payload: usize) -> Self {
        if let Self::Of(_, Some(outcome)) = &mut self {
            fit(outcome, max_payload);
        }
        self
    }

    /// About the bytes of the event of a state.
    pub fn weight(&self, state: &JobState) -> usize {
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
pub fn message(state: &JobState, said: &LastEvent, word: &EventBody, time: &str) -> StatusEvent {
    let (mut attempt, mut stall, mut outcome) = (None, None, None);
    match word {
        EventBody::Of(_, told) => outcome = told.as_deref().cloned(),
        EventBody::Attempt(told) => attempt = Some((**told).clone()),
        EventBody::Stall(told) => stall = Some(told.clone()),
    }
    StatusEvent {
        event: said.event,
        template: state.template.clone(),
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
