//! The control loop: watches add Jobs to the queue, and workers sync due Jobs.

use std::{collections::HashMap, fmt::Debug, pin::pin, time::Duration};

use futures::{Stream, StreamExt};
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::{
    Api, Client, Resource, ResourceExt,
    runtime::watcher::{self, Event, watcher},
};
use serde::de::DeserializeOwned;
use tokio::{
    task::{Id, JoinError, JoinSet},
    time::{Instant, sleep, sleep_until},
};

use super::{
    pods,
    queue::{Key, Queue},
    sync::{JobSyncer, SyncResult},
};

/// The limit of concurrent syncs.
const WORKERS: usize = 16;
/// The timeout of a watch, which bounds how long a silent watch goes unnoticed.
const WATCH_SECONDS: u32 = 60;
/// The pause after a failed watch.
const WATCH_PAUSE: Duration = Duration::from_millis(200);
/// The back-off after the first failed sync of a Job. It doubles with each further failure.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// The control loop.
pub(super) struct JobController {
    syncer: JobSyncer,
    queue: Queue,
    syncs: JoinSet<SyncResult>,
    /// The Job of each task, because a task that panics cannot return it.
    tasks: HashMap<Id, Key>,
    failures: HashMap<Key, u32>,
}

impl JobController {
    pub(super) fn new(syncer: JobSyncer) -> Self {
        Self {
            syncer,
            queue: Queue::default(),
            syncs: JoinSet::new(),
            tasks: HashMap::new(),
            failures: HashMap::new(),
        }
    }

    /// Runs until it is dropped, which also cancels running syncs.
    pub(super) async fn run(mut self, client: Client) {
        let mut jobs = pin!(watch::<Job>(client.clone()));
        let mut pods = pin!(watch::<Pod>(client));
        loop {
            self.start_due();
            let wait = self.queue.next().filter(|_| self.syncs.len() < WORKERS);
            tokio::select! {
                Some(job) = jobs.next() => self.queue.add(key_of(&job), Instant::now()),
                Some(pod) = pods.next() => {
                    if let Some(key) = owner_of(&pod) {
                        self.queue.add(key, Instant::now());
                    }
                }
                Some(done) = self.syncs.join_next_with_id() => self.finish(done),
                () = sleep_until(wait.unwrap_or_else(Instant::now)), if wait.is_some() => {}
            }
        }
    }

    fn start_due(&mut self) {
        while self.syncs.len() < WORKERS {
            let Some(key) = self.queue.pop(Instant::now()) else {
                return;
            };
            let (syncer, (namespace, name)) = (self.syncer.clone(), key.clone());
            let task = self.syncs.spawn(async move { syncer.sync(&namespace, &name).await });
            self.tasks.insert(task.id(), key);
        }
    }

    fn finish(&mut self, done: Result<(Id, SyncResult), JoinError>) {
        let (id, result) = match done {
            Ok(done) => done,
            Err(error) => {
                tracing::error!(%error, "Job sync task failed");
                (error.id(), SyncResult::Failed)
            }
        };
        let Some(key) = self.tasks.remove(&id) else {
            return;
        };
        let pause = match result {
            SyncResult::Failed => Some(self.pause(&key)),
            SyncResult::RequeueAfter(wait) => wait,
        };
        if !matches!(result, SyncResult::Failed) {
            self.failures.remove(&key);
        }
        self.queue.done(key, pause.and_then(|pause| Instant::now().checked_add(pause)));
    }

    fn pause(&mut self, key: &Key) -> Duration {
        let failures = self.failures.entry(key.clone()).or_default();
        let pause = FIRST_PAUSE.saturating_mul(1 << (*failures).min(10)).min(MAX_PAUSE);
        *failures = failures.saturating_add(1);
        pause
    }
}

/// Every object that exists or changes, including deleted ones.
fn watch<K>(client: Client) -> impl Stream<Item = K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    watcher(Api::all(client), watcher::Config::default().timeout(WATCH_SECONDS)).filter_map(async |event| {
        match event {
            Ok(Event::InitApply(object) | Event::Apply(object) | Event::Delete(object)) => Some(object),
            Ok(Event::Init | Event::InitDone) => None,
            Err(error) => {
                tracing::debug!(%error, "Job controller watch failed");
                sleep(WATCH_PAUSE).await;
                None
            }
        }
    })
}

fn key_of(job: &Job) -> Key {
    (job.namespace().unwrap_or_default(), job.name_any())
}

fn owner_of(pod: &Pod) -> Option<Key> {
    Some((pod.namespace().unwrap_or_default(), pods::owner(pod)?.name.clone()))
}
