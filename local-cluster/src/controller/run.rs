//! The loop: what the watches tell goes into the queue, what is due is worked on, a few Jobs at a time.

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

/// Jobs that are worked on at the same time.
const WORKERS: usize = 16;
/// How long the API keeps one watch: a watch that went silent is noticed after that.
const WATCH_SECONDS: u32 = 60;
/// The wait after a watch failed.
const WATCH_PAUSE: Duration = Duration::from_millis(200);
/// The wait after the first failure to work on a Job; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// See the module.
pub(super) struct JobController {
    actor: JobSyncer,
    queue: Queue,
    work: JoinSet<SyncResult>,
    /// Which task works on which Job: a task that panics cannot say.
    tasks: HashMap<Id, Key>,
    failures: HashMap<Key, u32>,
}

impl JobController {
    pub(super) fn new(actor: JobSyncer) -> Self {
        Self {
            actor,
            queue: Queue::default(),
            work: JoinSet::new(),
            tasks: HashMap::new(),
            failures: HashMap::new(),
        }
    }

    /// Works for ever; the caller drops it to stop, and with it the work that is under way.
    pub(super) async fn run(mut self, client: Client) {
        let mut jobs = pin!(watch::<Job>(client.clone()));
        let mut pods = pin!(watch::<Pod>(client));
        loop {
            self.start_due();
            let wait = self.queue.next().filter(|_| self.work.len() < WORKERS);
            tokio::select! {
                Some(job) = jobs.next() => self.queue.add(key_of(&job), Instant::now()),
                Some(pod) = pods.next() => {
                    if let Some(key) = owner_of(&pod) {
                        self.queue.add(key, Instant::now());
                    }
                }
                Some(done) = self.work.join_next_with_id() => self.finish(done),
                () = sleep_until(wait.unwrap_or_else(Instant::now)), if wait.is_some() => {}
            }
        }
    }

    fn start_due(&mut self) {
        while self.work.len() < WORKERS {
            let Some(key) = self.queue.pop(Instant::now()) else {
                return;
            };
            let (actor, (namespace, name)) = (self.actor.clone(), key.clone());
            let task = self.work.spawn(async move { actor.sync(&namespace, &name).await });
            self.tasks.insert(task.id(), key);
        }
    }

    fn finish(&mut self, done: Result<(Id, SyncResult), JoinError>) {
        let (id, again) = match done {
            Ok(done) => done,
            Err(error) => {
                tracing::error!(%error, "the work on a Job broke off");
                (error.id(), SyncResult::Failed)
            }
        };
        let Some(key) = self.tasks.remove(&id) else {
            return;
        };
        let pause = match again {
            SyncResult::Failed => Some(self.pause(&key)),
            SyncResult::RequeueAfter(wait) => wait,
        };
        if !matches!(again, SyncResult::Failed) {
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

/// Every object that is there or changed, the deleted ones too.
fn watch<K>(client: Client) -> impl Stream<Item = K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    watcher(Api::all(client), watcher::Config::default().timeout(WATCH_SECONDS)).filter_map(async |event| {
        match event {
            Ok(Event::InitApply(object) | Event::Apply(object) | Event::Delete(object)) => Some(object),
            Ok(Event::Init | Event::InitDone) => None,
            Err(error) => {
                tracing::debug!(%error, "a watch of the Job controller failed");
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
