//! Builds the status event that is published for a Job.
//!
//! The attempts of an outcome are cut to fit into one NATS message: the oldest log tails first,
//! then the oldest attempts.

use crate::{
    contract::{
        event::{Attempt, EventType, Outcome, Stall, StatusEvent},
        job::JobState,
        text::text_size,
    },
    status::{pod_tracker::PendingEvent, subject::LastEvent},
};

/// The maximum size of the attempts of one event, in bytes of JSON.
const MAX_ATTEMPTS_BYTES: usize = 256 * 1024;
/// The estimated size of an attempt without its free text: keys, numbers and names of bounded
/// length.
const ATTEMPT_BASE_BYTES: usize = 1024;

/// The part of a status event that depends on its type.
#[derive(Debug, Clone)]
pub enum EventBody {
    /// A change of the Job, with the outcome in an `OUTCOME` event.
    Job(EventType, Option<Box<Outcome>>),
    /// How a pod ended.
    Attempt(Box<Attempt>),
    /// Why no pod runs.
    Stall(Stall),
}

impl From<PendingEvent> for EventBody {
    fn from(event: PendingEvent) -> Self {
        match event {
            PendingEvent::Attempt(_, attempt) => Self::Attempt(attempt),
            PendingEvent::Stall(stall) => Self::Stall(stall),
        }
    }
}

impl EventBody {
    /// The type of the event.
    #[must_use]
    pub fn event_type(&self) -> EventType {
        match self {
            Self::Job(event, _) => *event,
            Self::Attempt(_) => EventType::Attempt,
            Self::Stall(_) => EventType::Stalled,
        }
    }

    /// Cuts the attempts of an outcome so that the event fits into a message of `max_payload`
    /// bytes.
    #[must_use]
    pub fn fitting(mut self, max_payload: usize) -> Self {
        if let Self::Job(_, Some(outcome)) = &mut self {
            cut_attempts(outcome, max_payload);
        }
        self
    }

    /// The approximate size of the event in bytes.
    #[must_use]
    pub fn size_hint(&self, job: &JobState) -> usize {
        let attempts: &[Attempt] = match self {
            Self::Job(_, Some(outcome)) => &outcome.attempts,
            Self::Attempt(attempt) => std::slice::from_ref(&**attempt),
            Self::Job(_, None) | Self::Stall(_) => &[],
        };
        let texts = attempts.iter().flat_map(|attempt| [&attempt.log_tail, &attempt.message]).flatten();
        job.status.text().len() + texts.map(String::len).sum::<usize>()
    }
}

/// Builds the status event of `job`. `last` is the state of the subject after the event is stored.
#[must_use]
pub fn status_event(job: &JobState, last: &LastEvent, body: &EventBody, time: &str) -> StatusEvent {
    let (mut attempt, mut stall, mut outcome) = (None, None, None);
    match body {
        EventBody::Job(_, body) => outcome = body.as_deref().cloned(),
        EventBody::Attempt(body) => attempt = Some((**body).clone()),
        EventBody::Stall(body) => stall = Some(body.clone()),
    }
    StatusEvent {
        event: last.event,
        template: job.template.clone(),
        name: job.name.clone(),
        namespace: job.namespace.clone(),
        uid: job.uid.clone(),
        request_id: job.request_id.clone(),
        request_seq: job.request_seq,
        template_hash: job
            .template_hash
            .as_deref()
            .filter(|_| last.event == EventType::Added)
            .map(str::to_owned),
        submitter: job.submitter.as_deref().cloned(),
        resource_version: last.resource_version.to_string(),
        time: time.to_owned(),
        status: job.status.value(),
        status_truncated: job.status.is_truncated(),
        attempt,
        stall,
        outcome,
    }
}

/// Limits the attempts to a quarter of `max_payload`. The rest is left for the Job's own status.
pub(super) fn cut_attempts(outcome: &mut Outcome, max_payload: usize) {
    let budget = MAX_ATTEMPTS_BYTES.min(max_payload / 4);
    let mut size: usize = outcome.attempts.iter().map(attempt_size).sum();
    for attempt in &mut outcome.attempts {
        if size <= budget {
            return;
        }
        let tail = attempt.log_tail.take();
        size -= tail.as_deref().map_or(0, text_size);
    }
    let mut omitted = 0;
    outcome.attempts.retain(|attempt| {
        let over = size > budget;
        if over {
            size -= attempt_size(attempt);
            omitted += 1;
        }
        !over
    });
    outcome.attempts_omitted += omitted;
}

/// An upper bound of the size of an attempt in JSON.
fn attempt_size(attempt: &Attempt) -> usize {
    let texts = [&attempt.message, &attempt.log_tail, &attempt.reason, &attempt.node, &attempt.container];
    ATTEMPT_BASE_BYTES + texts.into_iter().flatten().map(|text| text_size(text)).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::testing::a_job;

    fn outcome(attempts: Vec<Attempt>) -> Outcome {
        Outcome { attempts, ..a_job("u", 1, json!({})).outcome_of_deletion() }
    }

    fn attempt(n: usize, tail: &str) -> Attempt {
        Attempt { pod: n.to_string(), log_tail: Some(tail.into()), ..Attempt::default() }
    }

    #[test]
    fn attempts_within_the_limit_are_unchanged() {
        let mut small = outcome(vec![attempt(0, "a"), attempt(1, "b")]);
        let before = small.clone();
        cut_attempts(&mut small, 1 << 20);
        assert_eq!(small, before);
    }

    #[test]
    fn the_oldest_log_tails_are_cut_first() {
        let tail = "x".repeat(100 * 1024);
        let mut large = outcome((0..3).map(|n| attempt(n, &tail)).collect());
        cut_attempts(&mut large, 1 << 20);
        let tails: Vec<_> = large.attempts.iter().map(|attempt| attempt.log_tail.is_some()).collect();
        assert_eq!((tails, large.attempts_omitted), (vec![false, true, true], 0));
    }

    proptest! {
        #[test]
        fn attempts_take_at_most_half_of_the_maximum_payload(
            tails in prop::collection::vec("(?s).{0,2000}", 0..16), max_payload in 4096usize..200_000,
        ) {
            let attempts = tails.iter().enumerate().map(|(n, tail)| attempt(n, tail)).collect();
            let mut cut = outcome(attempts);
            cut_attempts(&mut cut, max_payload);
            prop_assert!(serde_json::to_string(&cut.attempts).unwrap().len() <= max_payload / 2);
            prop_assert_eq!(cut.attempts.len() + cut.attempts_omitted as usize, tails.len());
        }
    }
}
