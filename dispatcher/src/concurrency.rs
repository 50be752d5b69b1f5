//! The concurrency limit of each template, shared by the watch side and the intake.
//!
//! The watch side reports the Jobs. The intake takes a [`Reservation`] before it pulls a request, so
//! that a template never has more unfinished Jobs than its limit.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use dispatcher_core::{
    contract::{
        job::JobState,
        names::{JobName, RequestId, TemplateName},
    },
    request::concurrency::{ConcurrencyTable, DepartedJob, ReservationId},
};
use tokio::{sync::watch, time::timeout};

/// The unfinished Jobs and the reservations of all templates. Clones share them.
#[derive(Clone)]
pub(crate) struct ConcurrencyLimiter(Arc<Shared>);

struct Shared {
    table: Mutex<ConcurrencyTable>,
    changes: watch::Sender<()>,
}

/// The right to create one Job of a template. Dropping it releases the reservation, unless the Job
/// exists and the watch has not delivered it yet.
pub(crate) struct Reservation {
    limiter: ConcurrencyLimiter,
    template: TemplateName,
    id: ReservationId,
}

impl Default for ConcurrencyLimiter {
    fn default() -> Self {
        let table = Mutex::default();
        Self(Arc::new(Shared { table, changes: watch::Sender::new(()) }))
    }
}

impl ConcurrencyLimiter {
    /// Makes one to `max` reservations within the template's limit. Waits until at least one is
    /// possible, and for the first list of Jobs.
    pub(crate) async fn reserve(
        &self,
        template: &TemplateName,
        limit: usize,
        max: usize,
    ) -> Vec<Reservation> {
        let ids = self
            .wait_for(|table| {
                let ids = table.reserve(template, limit, max);
                (!ids.is_empty()).then_some(ids)
            })
            .await;
        let reservation = |id| Reservation { limiter: self.clone(), template: template.clone(), id };
        ids.into_iter().map(reservation).collect()
    }

    /// A list of all Jobs begins.
    pub(crate) fn begin_list(&self) {
        self.with(ConcurrencyTable::begin_list);
    }

    /// The list of Jobs is complete. Returns the counted Jobs that it lacks.
    pub(crate) fn end_list(&self) -> Vec<DepartedJob> {
        self.change(ConcurrencyTable::end_list)
    }

    /// The watch delivered a Job.
    pub(crate) fn apply(&self, job: &JobState) {
        self.change(|table| table.apply(job, job.is_finished()));
    }

    /// The watch delivered that a Job without a final condition left it. Returns the Job if it counts.
    pub(crate) fn departed(&self, uid: &str) -> Option<DepartedJob> {
        self.with(|table| table.departed(uid))
    }

    /// A GET showed that a Job has ended.
    pub(crate) fn ended(&self, job: &DepartedJob) {
        self.change(|table| table.ended(job));
    }

    /// The number of unfinished Jobs of each template; `None` before the first list.
    pub(crate) fn counts(&self) -> Option<Vec<(TemplateName, usize)>> {
        self.with(|table| table.counts())
    }

    /// Whether the watch has delivered an unfinished Job of this name.
    pub(crate) fn has_job(&self, template: &TemplateName, name: &JobName) -> bool {
        self.with(|table| table.has_job(template, name))
    }

    /// Waits at most `wait` until the watch delivers the unfinished Job of a request; its name.
    pub(crate) async fn wait_for_job(
        &self,
        template: &TemplateName,
        request: &RequestId,
        wait: Duration,
    ) -> Option<JobName> {
        timeout(wait, self.wait_for(|table| table.job_name(template, request))).await.ok()
    }

    /// Waits until `ready` returns a value. Calls it immediately and after each change.
    async fn wait_for<T>(&self, mut ready: impl FnMut(&mut ConcurrencyTable) -> Option<T>) -> T {
        let mut changes = self.0.changes.subscribe();
        loop {
            changes.mark_unchanged();
            if let Some(value) = self.with(&mut ready) {
                return value;
            }
            // This cannot fail: `self` holds the sender.
            let _ = changes.changed().await;
        }
    }

    fn with<T>(&self, work: impl FnOnce(&mut ConcurrencyTable) -> T) -> T {
        work(&mut self.0.table.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn change<T>(&self, change: impl FnOnce(&mut ConcurrencyTable) -> T) -> T {
        let result = self.with(change);
        self.0.changes.send_replace(());
        result
    }
}

impl Reservation {
    /// Binds the reservation to its request: from now on the Job counts once the watch delivers it.
    pub(crate) fn bind(&self, request: &RequestId) {
        self.limiter.with(|table| table.bind(&self.template, self.id, request));
    }

    /// The request has this Job.
    pub(crate) fn job_exists(self, job: &JobState) {
        self.limiter.with(|table| table.job_exists(&self.template, self.id, &job.uid, job.is_finished()));
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.limiter.change(|table| table.release(&self.template, self.id));
    }
}
