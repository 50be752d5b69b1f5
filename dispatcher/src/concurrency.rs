//! How many unfinished Jobs a template has: kept by the watch, read by the intake, which creates no more than the template's limit.
//!
//! Counted from the watch, never by a counter that can leak. What this replica has under work counts too, from the pull until
//! the watch has seen the Job: a [`Reservation`].

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, time::timeout};

use dispatcher_core::contract::{
    job::JobState,
    names::{JobName, RequestId, TemplateName},
};
use dispatcher_core::request::concurrency::{Number, Table};

/// The unfinished Jobs of every template, shared.
#[derive(Clone)]
pub struct ConcurrencyLimiter(Arc<Shared>);

struct Shared {
    table: Mutex<Table>,
    changes: watch::Sender<()>,
}

/// The right to create one Job of a template: given back when it is dropped, or once the watch has seen the Job.
pub struct Reservation {
    limiter: ConcurrencyLimiter,
    template: TemplateName,
    number: Number,
}

impl Default for ConcurrencyLimiter {
    fn default() -> Self {
        Self(Arc::new(Shared { table: Mutex::default(), changes: watch::Sender::new(()) }))
    }
}

impl ConcurrencyLimiter {
    /// At least one reservation and at most `most`, so that the template does not pass `limit`; waits until there is one. Before the
    /// watch has listed the Jobs there is none.
    pub async fn reserve(&self, template: &TemplateName, limit: usize, most: usize) -> Vec<Reservation> {
        let mut changes = self.0.changes.subscribe();
        loop {
            changes.mark_unchanged();
            let numbers = self.change(|table| table.reserve(template, limit, most));
            if !numbers.is_empty() {
                let reservation =
                    |number| Reservation { limiter: self.clone(), template: template.clone(), number };
                return numbers.into_iter().map(reservation).collect();
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

    /// How many unfinished Jobs each template has, as the watch has told; `None` before it has listed them.
    pub fn counts(&self) -> Option<Vec<(TemplateName, usize)>> {
        self.change(|table| table.counts())
    }

    /// The name of the unfinished Job that this request has.
    fn name_of(&self, template: &TemplateName, id: &RequestId) -> Option<JobName> {
        self.change(|table| table.name_of(template, id))
    }

    /// The same, waited for: the watch comes after what intake has told.
    pub async fn until_named(
        &self,
        template: &TemplateName,
        id: &RequestId,
        within: Duration,
    ) -> Option<JobName> {
        let mut changes = self.0.changes.subscribe();
        let named = async {
            loop {
                changes.mark_unchanged();
                if let Some(name) = self.name_of(template, id) {
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

impl Reservation {
    /// The reservation is for this request: what the watch tells of its Job from now on counts in the reservation's place.
    pub fn claim(&self, id: &RequestId) {
        self.limiter.change(|table| table.claim(&self.template, self.number, id));
    }

    /// The request has this Job.
    pub fn fill(self, state: &JobState) {
        let finished = state.outcome().is_some();
        self.limiter.change(|table| table.has(&self.template, self.number, &state.uid, finished));
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.limiter.change_and_tell(|table| table.release(&self.template, self.number));
    }
}
