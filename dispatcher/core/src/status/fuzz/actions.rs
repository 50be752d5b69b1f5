//! Performs the actions of the replicas, and checks the guarantees for each published event.

use std::hash::Hash;

use super::Simulation;
use crate::{
    contract::{
        event::{EventType, StatusEvent},
        job::JobState,
    },
    status::{
        event_body::{EventBody, status_event},
        event_size::fit,
        reconcile::{Action, NameCheck, check_name, resource_version},
        subject::{LastEvent, SubjectKey, SubjectState},
        subject_queue::{ActionResult, DeletionCheck},
    },
};

/// The maximum number of actions of one queue per line of input.
const MAX_ACTIONS: usize = 400;
const MAX_PAYLOAD: usize = 64 * 1024;
const TIME: &str = "2026-01-02T03:04:05Z";

impl Simulation {
    /// Performs every action that is due in a replica.
    pub(super) fn advance(&mut self, replica: usize) {
        for key in self.replicas[replica].queues.keys().cloned().collect::<Vec<_>>() {
            for actions in 0.. {
                assert!(actions < MAX_ACTIONS, "the queue does not come to rest");
                let replica_state = &mut self.replicas[replica];
                let Some(queue) = replica_state.queues.get_mut(&key) else { break };
                drop(queue.take_served());
                let next = queue.next(replica_state.pods_listed);
                if let Some((uid, effects)) = queue.take_effects() {
                    let effects = effects.into_iter().map(|effect| (key.clone(), uid.clone(), effect));
                    replica_state.effects.extend(effects);
                }
                let Some((action, job, subject)) = next else {
                    if queue.is_idle(true) {
                        replica_state.queues.remove(&key);
                    }
                    break;
                };
                let waits = action == Action::AwaitPrevious;
                if self.paused {
                    replica_state.in_flight.push((key.clone(), action, job, subject));
                    break;
                }
                self.perform(replica, &key, action, &job, &subject);
                if waits {
                    break;
                }
            }
        }
    }

    /// Completes the actions that were in flight during a pause.
    pub(super) fn resume(&mut self) {
        self.paused = false;
        for replica in 0..2 {
            for (key, action, job, subject) in std::mem::take(&mut self.replicas[replica].in_flight) {
                self.perform(replica, &key, action, &job, &subject);
            }
            self.advance(replica);
        }
    }

    fn perform(
        &mut self,
        replica: usize,
        key: &SubjectKey,
        action: Action,
        job: &JobState,
        subject: &SubjectState,
    ) {
        let result = match action {
            Action::Publish(event, outcome) => {
                self.publish(key, job, subject, EventBody::Job(event, outcome))
            }
            Action::PublishPending(event) => self.publish(key, job, subject, event.into()),
            Action::AwaitPrevious => ActionResult::Read(self.subject(key)),
            Action::ClosePrevious => self.close_previous(key, job),
            Action::VerifyDeleted => {
                let exists = self.jobs.get(job.name.as_ref()).is_some_and(|(uid, _)| *uid == job.uid);
                ActionResult::Verified(match (exists, self.cancelled) {
                    (true, _) => DeletionCheck::Exists,
                    (false, true) => DeletionCheck::Cancelled,
                    (false, false) => DeletionCheck::Deleted,
                })
            }
            Action::VerifyCurrent => {
                let holder = self.jobs.get(job.name.as_ref()).map(|(uid, _)| uid.as_str());
                match (check_name(subject.last.as_ref(), job, holder), self.cancelled) {
                    (NameCheck::Current, _) => ActionResult::Current,
                    (NameCheck::Outdated, _) => ActionResult::Verified(DeletionCheck::Exists),
                    (NameCheck::Deleted, true) => ActionResult::Verified(DeletionCheck::Cancelled),
                    (NameCheck::Deleted, false) => ActionResult::Verified(DeletionCheck::Deleted),
                }
            }
            Action::Retire => {
                let events = self.stream.get(key).into_iter().flatten();
                let mut outcomes = events.filter(|(_, event, _)| event.event == EventType::Outcome);
                assert!(
                    outcomes.any(|(_, event, _)| event.uid == job.uid),
                    "a Job without an outcome is retired"
                );
                ActionResult::Retired
            }
        };
        if let Some(queue) = self.replicas[replica].queues.get_mut(key) {
            queue.complete(result);
        }
    }

    fn close_previous(&mut self, key: &SubjectKey, job: &JobState) -> ActionResult {
        let subject = self.subject(key);
        if subject.last.as_ref().is_none_or(|last| last.is_final() || last.uid == job.uid) {
            return ActionResult::Read(subject);
        }
        let Some((_, event, hash)) = self.stream.get(key).and_then(|messages| messages.last()) else {
            return ActionResult::Read(subject);
        };
        let mut previous = JobState::from_last_event(event.clone(), hash.clone());
        previous.cancelled = self.cancelled;
        let outcome = previous.outcome().unwrap_or_else(|| previous.outcome_of_deletion());
        let body = EventBody::Job(EventType::Outcome, Some(Box::new(outcome)));
        self.publish(key, &previous, &subject, body)
    }

    /// The state of a subject, read from the stream.
    pub(super) fn subject(&self, key: &SubjectKey) -> SubjectState {
        let last = self.stream.get(key).and_then(|messages| messages.last());
        last.map_or_else(SubjectState::default, |(sequence, event, _)| SubjectState {
            sequence: *sequence,
            last: Some(LastEvent {
                uid: event.uid.clone(),
                resource_version: event.resource_version.parse().unwrap(),
                event: event.event,
            }),
        })
    }

    /// Stores an event unless it is fenced, and checks the guarantees.
    fn publish(
        &mut self,
        key: &SubjectKey,
        job: &JobState,
        subject: &SubjectState,
        body: EventBody,
    ) -> ActionResult {
        let current = self.subject(key);
        if current.sequence != subject.sequence {
            return ActionResult::Read(current);
        }
        let last = LastEvent {
            uid: job.uid.clone(),
            resource_version: resource_version(subject.last.as_ref(), job),
            event: body.event_type(),
        };
        let event = fit(status_event(job, &last, &body.fitting(MAX_PAYLOAD), TIME), MAX_PAYLOAD);
        self.check_guarantees(key, &event);
        event.event.as_str().hash(&mut self.coverage);
        let outcome = event.outcome.as_ref();
        outcome.map(|outcome| (outcome.result.to_string(), outcome.attempts.len())).hash(&mut self.coverage);
        self.last_sequence += 1;
        let message = (self.last_sequence, event, job.request_hash.clone());
        self.stream.entry(key.clone()).or_default().push(message);
        ActionResult::Published(SubjectState { sequence: self.last_sequence, last: Some(last) })
    }

    fn check_guarantees(&self, key: &SubjectKey, event: &StatusEvent) {
        assert_eq!((&event.template, &event.name), (&key.0, &key.1), "published on another subject");
        assert_eq!(event.outcome.is_some(), event.event == EventType::Outcome);
        let bytes = serde_json::to_vec(event).unwrap();
        assert!(bytes.len() <= MAX_PAYLOAD, "an event of {} bytes", bytes.len());
        let decoded: StatusEvent = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(&decoded, event, "decoded as another event");
        let before: Vec<&StatusEvent> =
            self.stream.get(key).into_iter().flatten().map(|(_, event, _)| event).collect();
        let same_job = || before.iter().filter(|other| other.uid == event.uid);
        let type_ = event.event.as_str();
        assert!(
            same_job().all(|other| other.event != EventType::Outcome),
            "{type_} is published after the outcome"
        );
        let version = |event: &StatusEvent| event.resource_version.parse::<u64>().unwrap();
        let newest = before.iter().map(|other| version(other)).max().unwrap_or_default();
        match event.event {
            EventType::Added | EventType::Modified | EventType::Deleted => {
                assert!(version(event) > newest, "{type_} of {} is published after {newest}", version(event));
            }
            _ => {
                assert!(version(event) >= newest || same_job().count() == 0, "the resourceVersion decreases");
            }
        }
        let first = same_job().count() == 0 && event.event != EventType::Deleted;
        assert_eq!(event.event == EventType::Added, first, "ADDED is not the first event");
    }
}
