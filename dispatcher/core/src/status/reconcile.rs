//! What was said of a name + a Job as it is now → the next thing to do.
//!
//! One step at a time: the caller does it, remembers what is said now, and asks again until nothing is left. The rule
//! is level-triggered: it compares two states and does not care how many events lie between them.

use crate::{
    contract::{
        event::{EventType, Outcome},
        job::{JobState, Presence},
    },
    status::pod_tracker::PendingEvent,
};

/// The last thing that was said on a status subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastEvent {
    /// Of which Job.
    pub uid: String,
    /// Its newest resourceVersion that was said.
    pub resource_version: u64,
    /// What was said.
    pub event: EventType,
}

impl LastEvent {
    /// Whether nothing may follow of that Job.
    pub fn is_final(&self) -> bool {
        self.event == EventType::Outcome
    }
}

/// How much the one who asks knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The answer to a create: knows that the Job is there, and nothing of what came before or after.
    Create,
    /// The watch or a list: everything that happened before is known.
    Watch,
}

/// The next thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Publish this event of the Job.
    Publish(EventType, Option<Box<Outcome>>),
    /// An earlier Job of that name never got its outcome: read the last message and say that it was deleted.
    ClosePrevious,
    /// Ask the API server whether the Job is really gone.
    VerifyDeleted,
    /// The outcome is stored: patch TTL and mark onto the Job.
    Retire,
    /// Say what pods or Events tell of the Job.
    PublishPending(PendingEvent),
    /// An earlier Job of that name is not closed yet, and only the watch may close it: wait for it.
    AwaitPrevious,
}

/// The next step for the Job `now`, given the last thing said on its subject; `None` when nothing is left to do.
pub fn next(said: Option<&LastEvent>, now: &JobState, source: Source) -> Option<Action> {
    match said {
        // A later Job of that name was spoken of: this state is a late one of an earlier Job.
        Some(said) if said.uid != now.uid && now.resource_version <= said.resource_version => None,
        Some(said) if said.uid != now.uid && !said.is_final() => {
            Some(if source == Source::Watch { Action::ClosePrevious } else { Action::AwaitPrevious })
        }
        _ if now.retired => None,
        Some(said) if said.uid == now.uid => follow(said, now, source),
        _ => first(now),
    }
}

/// Whether there is something to say where a Job `now` is, given what was read of its subject. Of the many retired Jobs, which
/// stay until their TTL, there is not, unless an earlier one of that name was spoken of last: the stream has lost messages.
pub fn needs_reconcile(said: Option<&LastEvent>, now: &JobState) -> bool {
    !now.retired || said.is_some_and(|said| said.uid != now.uid && !said.is_final())
}

/// Nothing was said of this Job yet.
fn first(now: &JobState) -> Option<Action> {
    match now.presence {
        Presence::Present => Some(Action::Publish(EventType::Added, None)),
        Presence::DeletedUnverified => Some(Action::VerifyDeleted),
        Presence::Deleted => Some(Action::Publish(EventType::Deleted, None)),
        // Its last state came from what was said, so something was said: the subject was purged since.
        Presence::MissingUnverified | Presence::Missing => None,
    }
}

/// `said` was said of this very Job.
fn follow(said: &LastEvent, now: &JobState, source: Source) -> Option<Action> {
    // A create's answer is the first word and never more: what follows is the watch's to tell.
    if source == Source::Create {
        return None;
    }
    if said.is_final() {
        return (now.presence == Presence::Present).then_some(Action::Retire);
    }
    match now.presence {
        Presence::Present if now.resource_version > said.resource_version => {
            Some(Action::Publish(EventType::Modified, None))
        }
        Presence::Present => now.outcome().map(say_outcome),
        Presence::DeletedUnverified | Presence::MissingUnverified => Some(Action::VerifyDeleted),
        Presence::Deleted if now.resource_version > said.resource_version => {
            Some(Action::Publish(EventType::Deleted, None))
        }
        Presence::Deleted | Presence::Missing => {
            Some(say_outcome(now.outcome().unwrap_or_else(|| now.outcome_of_deletion())))
        }
    }
}

/// The resourceVersion that an event of `now` carries: never below what was said of that Job before.
pub fn resource_version(said: Option<&LastEvent>, now: &JobState) -> u64 {
    let before = said.filter(|said| said.uid == now.uid).map_or(0, |said| said.resource_version);
    before.max(now.resource_version)
}

fn say_outcome(outcome: Outcome) -> Action {
    Action::Publish(EventType::Outcome, Some(Box::new(outcome)))
}

#[cfg(test)]
mod tests;
