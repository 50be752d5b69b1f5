//! The parts of a resync that need the stream `JOB_STATUS`, and the second pass after it.
//!
//! A Job may be created and deleted before the list, and its `ADDED` be stored after the scan. Then
//! neither contains it, and no watch event follows. So after 40 s, a second pass verifies every
//! open subject that neither the resync nor the watch has covered.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use dispatcher_core::{
    contract::{
        job::JobState,
        names::{JobName, TemplateName},
        uid::UidKey,
    },
    request::HANDLE_DEADLINE,
    status::{SubjectKey, SubjectState},
};
use tokio::{sync::watch, time::sleep};

use crate::{
    leadership::Leadership,
    nats::status_stream::{LastMessage, StatusStream, StoreError},
    retry::retry_forever,
    status::{StatusHandle, Stopped},
    telemetry::health::Component,
    watch::tombstones::Tombstones,
};

/// The delay of a second pass. If a Job existed before the resync, this is enough time for its
/// request to store the `ADDED` or to be delivered again.
const SECOND_PASS_DELAY: Duration = HANDLE_DEADLINE.saturating_add(Duration::from_secs(5));

/// The open subjects: no `OUTCOME` follows their last event.
pub(super) type OpenSubjects = HashMap<SubjectKey, SubjectState>;

/// What resyncs share with the second pass.
pub(super) struct Resync {
    store: StatusStream,
    status: StatusHandle,
    leadership: Leadership,
    /// Ready while the store can be read.
    health: Component,
    /// The Jobs that ended and are deleted.
    pub tombstones: Tombstones,
    /// The Jobs that the second pass skips.
    pub covered: CoveredJobs,
}

impl Resync {
    pub(super) fn new(
        store: StatusStream,
        status: StatusHandle,
        leadership: Leadership,
        health: Component,
    ) -> Self {
        // Nothing is read until the first resync.
        health.ready();
        let (tombstones, covered) = (Tombstones::default(), CoveredJobs::default());
        Self { store, status, leadership, health, tombstones, covered }
    }

    /// The last message of a Job's subject, if it is a status event. Retries until the read
    /// succeeds.
    pub(super) async fn last(&self, template: &TemplateName, name: &JobName) -> Option<LastMessage> {
        let read = async || match self.store.last(template, name).await {
            Err(StoreError::Foreign(_)) => Ok(None),
            result => result,
        };
        retry_forever(&self.health, read).await
    }

    /// The open subjects. Retries until the scan succeeds.
    pub(super) async fn open_subjects(&self) -> OpenSubjects {
        retry_forever(&self.health, || self.store.open_subjects()).await
    }

    /// Observes the Jobs of open subjects that the list lacks. `status` verifies each with a GET
    /// before it publishes a deletion.
    pub(super) async fn observe_missing(
        &self,
        subjects: impl IntoIterator<Item = SubjectKey>,
    ) -> Result<(), Stopped> {
        for (template, name) in subjects {
            if let Some(last) = self.last(&template, &name).await {
                let subject = last.known.clone();
                let state = self.tombstones.get(&last.event.uid).unwrap_or_else(|| last.missing());
                self.status.observe_job(state, Some(subject)).await?;
            }
        }
        Ok(())
    }

    /// Runs the second passes until the service stops; the caller drops the future to stop.
    /// `resyncs` changes with each resync.
    pub(super) async fn run_second_passes(&self, mut resyncs: watch::Receiver<u64>) {
        if resyncs.changed().await.is_err() {
            return;
        }
        loop {
            let passes = async {
                // A pass that finds a Job may hide a later Job of its name, so another pass
                // follows.
                while {
                    sleep(SECOND_PASS_DELAY).await;
                    self.second_pass().await?
                } {}
                self.covered.clear();
                Ok::<(), Stopped>(())
            };
            let again = tokio::select! {
                // A new resync starts its own second passes.
                again = resyncs.changed() => again.is_ok(),
                done = passes => done.is_ok() && resyncs.changed().await.is_ok(),
            };
            if !again {
                return;
            }
        }
    }

    /// Verifies the open subjects that are not covered. Returns whether there were any.
    async fn second_pass(&self) -> Result<bool, Stopped> {
        if !self.leadership.is_ours() {
            return Ok(false);
        }
        let open = self.open_subjects().await;
        let uncovered = self.covered.uncovered(&open);
        tracing::debug!(open = open.len(), uncovered = uncovered.len(), "second pass");
        self.covered.add_all(uncovered.iter().filter_map(|subject| open.get(subject)));
        let found = !uncovered.is_empty();
        // `status` ignores a Job whose watch event is about to arrive: its GET finds the Job.
        self.observe_missing(uncovered).await?;
        Ok(found)
    }
}

/// The uids of the Jobs that a resync and the watch since have covered. Empty after the second
/// pass.
#[derive(Debug, Default)]
pub(super) struct CoveredJobs(Mutex<Option<HashSet<UidKey>>>);

impl CoveredJobs {
    /// Starts a resync. It covers every Job of its scan, whether the list contains the Job or not.
    pub(super) fn start<'a>(&self, scan: impl IntoIterator<Item = &'a SubjectState>) {
        *self.uids() = Some(uids(scan).collect());
    }

    /// Adds a Job of the list or the watch. Retired Jobs have no open subject.
    pub(super) fn add(&self, state: &JobState) {
        if let (Some(uids), false) = (self.uids().as_mut(), state.retired) {
            uids.insert(state.uid.as_str().into());
        }
    }

    fn add_all<'a>(&self, subjects: impl IntoIterator<Item = &'a SubjectState>) {
        if let Some(covered) = self.uids().as_mut() {
            covered.extend(uids(subjects));
        }
    }

    /// Forgets all until the next resync.
    pub(super) fn clear(&self) {
        *self.uids() = None;
    }

    /// The open subjects of uncovered Jobs; none if no second pass is due.
    fn uncovered<'a>(
        &self,
        open: impl IntoIterator<Item = (&'a SubjectKey, &'a SubjectState)>,
    ) -> Vec<SubjectKey> {
        let uids = self.uids();
        let Some(uids) = uids.as_ref() else { return vec![] };
        let is_covered = |state: &SubjectState| {
            state.last.as_ref().is_none_or(|last| uids.contains(&last.uid.as_str().into()))
        };
        open.into_iter().filter(|(_, state)| !is_covered(state)).map(|(subject, _)| subject.clone()).collect()
    }

    fn uids(&self) -> MutexGuard<'_, Option<HashSet<UidKey>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn uids<'a>(subjects: impl IntoIterator<Item = &'a SubjectState>) -> impl Iterator<Item = UidKey> {
    subjects.into_iter().filter_map(|state| Some(state.last.as_ref()?.uid.as_str().into()))
}

#[cfg(test)]
mod tests;
