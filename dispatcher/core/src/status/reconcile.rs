//! Compares the last published event of a status subject with the observed Job.
//!
//! The caller performs the returned [`Action`], updates its state and calls [`reconcile`] again
//! until it returns `None`. The rule is level-triggered: it depends on the two states, and not on
//! the watch events between them.

use crate::{
    contract::{
        event::{EventType, Outcome},
        job::{JobState, Presence},
    },
    status::{pod_tracker::PendingEvent, subject::LastEvent},
};

/// Where an observed Job comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The response to a create. It proves that the Job exists, but the previous Job of the same
    /// name may have changes that are not published yet.
    Create,
    /// A watch event or a list. Every earlier change has been observed.
    Watch,
}

/// The next step for an observed Job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Publish this event of the Job.
    Publish(EventType, Option<Box<Outcome>>),
    /// Read the last message and publish the outcome of its Job. A new Job has the name now.
    ClosePrevious,
    /// Ask the API server whether the Job is really deleted.
    VerifyDeleted,
    /// Ask the API server which Job has the name: the last event belongs to another Job.
    VerifyCurrent,
    /// Patch the TTL and the outcome label onto the Job. It has a final condition, and its outcome is
    /// stored.
    Retire,
    /// Publish an attempt or a stall of the Job.
    PublishPending(PendingEvent),
    /// Wait for the outcome of the previous Job of this name. Only the watch may close that Job.
    AwaitPrevious,
}

/// Returns the next action for `job`, or `None` if nothing is left to do.
#[must_use]
pub fn reconcile(last: Option<&LastEvent>, job: &JobState, source: Source) -> Option<Action> {
    match last {
        Some(last) if last.uid != job.uid => reconcile_other(last, job, source),
        _ if job.retired => None,
        Some(last) => reconcile_published(last, job, source),
        None => reconcile_unpublished(job),
    }
}

/// Whether an observed Job may require an action.
///
/// A retired Job, which stays until its TTL expires, requires none, unless the last event belongs
/// to a previous Job without an outcome: then the stream has lost messages.
#[must_use]
pub fn needs_reconcile(last: Option<&LastEvent>, job: &JobState) -> bool {
    !job.retired || last.is_some_and(|last| last.uid != job.uid && !last.is_final())
}

/// The last event belongs to another Job of the name.
///
/// The resourceVersions of two Jobs are not comparable: a restored etcd assigns lower ones again. So
/// a GET decides. The response to a create needs no GET, unless another replica has published a later
/// Job since.
fn reconcile_other(last: &LastEvent, job: &JobState, source: Source) -> Option<Action> {
    // A missing Job was read from its last event. It was closed since.
    if matches!(job.presence, Presence::MissingUnverified | Presence::Missing) {
        return None;
    }
    let is_created = source == Source::Create && job.resource_version > last.resource_version;
    if !job.confirmed && !is_created {
        return Some(Action::VerifyCurrent);
    }
    if !last.is_final() {
        return Some(if source == Source::Watch { Action::ClosePrevious } else { Action::AwaitPrevious });
    }
    if job.retired { None } else { reconcile_unpublished(job) }
}

/// What the API server's answer to [`Action::VerifyCurrent`] means for an observed Job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameCheck {
    /// The Job has the name. The Job of the last event is deleted.
    Current,
    /// The Job was deleted, and is newer than the Job of the last event.
    Deleted,
    /// The observation is outdated.
    Outdated,
}

/// Decides [`Action::VerifyCurrent`]. `holder` is the uid of the Job that has the name.
#[must_use]
pub fn check_name(last: Option<&LastEvent>, job: &JobState, holder: Option<&str>) -> NameCheck {
    let is_present = job.presence == Presence::Present;
    if holder == Some(job.uid.as_str()) {
        // A deleted Job that exists has only left the selector of the watch.
        return if is_present { NameCheck::Current } else { NameCheck::Outdated };
    }
    // The watch delivers the deletion of a Job that was present.
    if is_present || last.is_some_and(|last| holder == Some(last.uid.as_str())) {
        return NameCheck::Outdated;
    }
    // Neither Job exists. Then a wrong order costs the events of a deleted Job.
    let is_newer = last.is_none_or(|last| job.resource_version > last.resource_version);
    if is_newer { NameCheck::Deleted } else { NameCheck::Outdated }
}

/// The subject has no event of this Job.
fn reconcile_unpublished(job: &JobState) -> Option<Action> {
    match job.presence {
        Presence::Present => Some(Action::Publish(EventType::Added, None)),
        Presence::DeletedUnverified => Some(Action::VerifyDeleted),
        Presence::Deleted => Some(Action::Publish(EventType::Deleted, None)),
        // A missing Job is read from its last event. The subject was purged since then.
        Presence::MissingUnverified | Presence::Missing => None,
    }
}

/// The last event belongs to this Job.
fn reconcile_published(last: &LastEvent, job: &JobState, source: Source) -> Option<Action> {
    // The response to a create yields `ADDED` only: the watch may already have observed more.
    if source == Source::Create {
        return None;
    }
    if last.is_final() {
        // Without a final condition, the Job stays in the watch: it counts towards the limits.
        return (job.presence == Presence::Present && job.is_finished()).then_some(Action::Retire);
    }
    match job.presence {
        Presence::Present if job.resource_version > last.resource_version => {
            Some(Action::Publish(EventType::Modified, None))
        }
        Presence::Present => job.outcome().map(publish_outcome),
        Presence::DeletedUnverified | Presence::MissingUnverified => Some(Action::VerifyDeleted),
        Presence::Deleted if job.resource_version > last.resource_version => {
            Some(Action::Publish(EventType::Deleted, None))
        }
        Presence::Deleted | Presence::Missing => {
            Some(publish_outcome(job.outcome().unwrap_or_else(|| job.outcome_of_deletion())))
        }
    }
}

/// The resourceVersion of the next event of `job`. It never decreases within a Job.
#[must_use]
pub fn resource_version(last: Option<&LastEvent>, job: &JobState) -> u64 {
    let published = last.filter(|last| last.uid == job.uid).map_or(0, |last| last.resource_version);
    published.max(job.resource_version)
}

fn publish_outcome(outcome: Outcome) -> Action {
    Action::Publish(EventType::Outcome, Some(Box::new(outcome)))
}

#[cfg(test)]
mod tests;
