//! How many unfinished Jobs a kind has: kept by the watch, read by the intake, which creates no more than the kind's limit.
//!
//! Counted from the watch, never by a counter that can leak. What this replica has under work counts too, from the pull until
//! the watch has seen the Job: a [`Slot`].

mod table;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, time::timeout};

use self::table::{Number, Table};
use crate::contract::{
    job::JobState,
    names::{JobName, Kind, RequestId},
};

/// The unfinished Jobs of every kind, shared.
#[derive(Clone)]
pub struct Active(Arc<Shared>);

struct Shared {
    table: Mutex<Table>,
    changes: watch::Sender<()>,
}

/// The right to create one Job of a kind: given back when it is dropped, or once the watch has seen the Job.
pub struct Slot {
    active: Active,
    kind: Kind,
    number: Number,
}

impl Default for Active {
    fn default() -> Self {
        Self(Arc::new(Shared { table: Mutex::default(), changes: watch::Sender::new(()) }))
    }
}

impl Active {
    /// At least one slot and at most `most`, so that the kind does not pass `limit`; waits until there is one. Before the
    /// watch has listed the Jobs there is none.
    pub async fn slots(&self, kind: &Kind, limit: usize, most: usize) -> Vec<Slot> {
        let mut changes = self.0.changes.subscribe();
        loop {
            changes.mark_unchanged();
            let numbers = self.change(|table| table.reserve(kind, limit, most));
            if !numbers.is_empty() {
                let slot = |number| Slot { active: self.clone(), kind: kind.clone(), number };
                return numbers.into_iter().map(slot).collect();
            }
            // The sender is in `self`: it does not end.
            let _ = changes.changed().await;
        }
    }

    /// The Jobs are about to be listed.
    pub fn list_begins(&self) {
        self.change(Table::list_begins);
    }

    /// All Jobs are listed.
    pub fn listed(&self) {
        self.change_and_tell(Table::listed);
    }

    /// A Job as it is now: in a list, or after a change.
    pub fn apply(&self, state: &JobState) {
        let finished = state.outcome().is_some();
        self.change_and_tell(|table| table.apply(state, finished));
    }

    /// A Job is gone.
    pub fn delete(&self, state: &JobState) {
        self.change_and_tell(|table| table.apply(state, true));
    }

    /// How many unfinished Jobs each kind has, as the watch has told; `None` before it has listed them.
    pub fn counts(&self) -> Option<Vec<(Kind, usize)>> {
        self.change(|table| table.counts())
    }

    /// The name of the unfinished Job that this request has.
    fn name_of(&self, kind: &Kind, id: &RequestId) -> Option<JobName> {
        self.change(|table| table.name_of(kind, id))
    }

    /// The same, waited for: the watch comes after what intake has told.
    pub async fn until_named(&self, kind: &Kind, id: &RequestId, within: Duration) -> Option<JobName> {
        let mut changes = self.0.changes.subscribe();
        let named = async {
            loop {
                changes.mark_unchanged();
                if let Some(name) = self.name_of(kind, id) {
                    return name;
                }
                // The sender is in `self`: it does not end.
                let _ = changes.changed().await;
            }
        };
        timeout(within, named).await.ok()
    }

    fn change<T>(&self, change: impl FnOnce(&mut Table) -> T) -> T {
        change(&mut self.0.table.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn change_and_tell(&self, change: impl FnOnce(&mut Table)) {
        self.change(change);
        self.0.changes.send_replace(());
    }
}

impl Slot {
    /// The slot is for this request: what the watch tells of its Job from now on counts in the slot's place.
    pub fn claim(&self, id: &RequestId) {
        self.active.change(|table| table.claim(&self.kind, self.number, id));
    }

    /// The request has this Job.
    pub fn has(self, state: &JobState) {
        let finished = state.outcome().is_some();
        self.active.change(|table| table.has(&self.kind, self.number, &state.uid, finished));
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.active.change_and_tell(|table| table.release(&self.kind, self.number));
    }
}
