//! Jobs that left the watch without a final condition: deleted, or only out of the selector.
//!
//! They count towards the concurrency limit until a GET shows their end. Runs in every replica.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use dispatcher_core::request::{
    change_error::refusal_delay,
    concurrency::{DepartedJob, Departure},
};
use futures::{StreamExt, stream};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use crate::{concurrency::ConcurrencyLimiter, kube::JobClient};

/// The largest number of concurrent GETs.
const MAX_CALLS: usize = 8;
/// The longest delay before a Job is read again that is in no watch.
const MAX_DELAY: Duration = Duration::from_secs(30);

/// The Jobs to read. Each of them is counted by the limiter, which bounds their number.
pub(super) struct Departures {
    client: JobClient,
    limiter: ConcurrencyLimiter,
    jobs: Mutex<HashMap<String, Departed>>,
    added: Notify,
}

struct Departed {
    job: DepartedJob,
    reads: u32,
    due: Instant,
}

impl Departures {
    pub(super) fn new(client: JobClient, limiter: ConcurrencyLimiter) -> Self {
        Self { client, limiter, jobs: Mutex::default(), added: Notify::new() }
    }

    /// Adds Jobs that the watch or a list lacks.
    pub(super) fn add(&self, jobs: impl IntoIterator<Item = DepartedJob>) {
        for job in jobs {
            let departed = Departed { job, reads: 0, due: Instant::now() };
            self.lock().insert(departed.job.uid.clone(), departed);
            self.added.notify_one();
        }
    }

    /// The watch delivers this Job again.
    pub(super) fn observed(&self, uid: &str) {
        self.lock().remove(uid);
    }

    /// Reads the Jobs until the service stops; the caller drops the future to stop.
    pub(super) async fn run(&self) {
        loop {
            let due = self.due();
            stream::iter(due).map(|job| self.read(job)).buffer_unordered(MAX_CALLS).collect::<()>().await;
            let next = self.lock().values().map(|departed| departed.due).min();
            match next {
                Some(due) => tokio::select! {
                    () = sleep_until(due) => {}
                    () = self.added.notified() => {}
                },
                None => self.added.notified().await,
            }
        }
    }

    fn due(&self) -> Vec<DepartedJob> {
        let now = Instant::now();
        self.lock()
            .values()
            .filter(|departed| departed.due <= now)
            .map(|departed| departed.job.clone())
            .collect()
    }

    async fn read(&self, job: DepartedJob) {
        // The watch reports an API server that does not answer.
        let found = self.client.get(job.name.as_ref()).await;
        match found.map(|found| job.departure(found.as_ref())) {
            Ok(Departure::Ended) => {
                self.limiter.ended(&job);
                self.lock().remove(&job.uid);
            }
            Ok(Departure::Watched) => drop(self.lock().remove(&job.uid)),
            Ok(Departure::Hidden) | Err(_) => {
                if let Some(departed) = self.lock().get_mut(&job.uid) {
                    departed.reads = departed.reads.saturating_add(1);
                    departed.due = Instant::now() + refusal_delay(departed.reads).min(MAX_DELAY);
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Departed>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
