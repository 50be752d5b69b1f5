//! The checker's own watch: every Job that the namespace ever had, in its last state.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use futures::StreamExt;
use k8s_openapi::api::batch::v1::Job;
use kube::api::ListParams;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::wait::TIMEOUT;

use super::history::{Ended, JobSeen};

/// Between two tries to reach the API server: short, so that little is missed.
const PAUSE: Duration = Duration::from_millis(200);
const LIST: Duration = Duration::from_secs(10);

/// A Job and the version of the state that was seen.
#[derive(Debug, Clone, Default)]
struct Seen {
    job: JobSeen,
    version: u64,
    ended: Option<SystemTime>,
}

/// Every uid ever seen, and those that were there before the first request.
#[derive(Debug, Default)]
struct Table(BTreeMap<String, Seen>, BTreeSet<String>);

/// A running watch; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct JobWatch {
    api: Api<Job>,
    table: Arc<Mutex<Table>>,
    task: JoinHandle<()>,
}

impl JobWatch {
    /// Starts it and waits for its first list: nothing that comes after is missed but by a watch that broke for long.
    pub(super) async fn start(client: Client, namespace: &str) -> Result<Self, String> {
        let api: Api<Job> = Api::namespaced(client, namespace);
        let table = Arc::new(Mutex::new(Table::default()));
        let (listed, mut first) = watch::channel(false);
        let task = tokio::spawn(run(api.clone(), table.clone(), listed));
        let this = Self { api, table, task };
        let first = timeout(TIMEOUT, first.wait_for(|listed| *listed)).await;
        first.map(drop).map_err(|_| format!("no list of the Jobs in {namespace} within {TIMEOUT:?}"))?;
        Ok(this)
    }

    /// What was seen so far.
    pub(super) fn jobs(&self) -> Vec<JobSeen> {
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.0.values().map(|seen| seen.job.clone()).collect()
    }

    /// When each Job was first seen at its end, or gone, by its uid.
    pub(super) fn ends(&self) -> BTreeMap<String, SystemTime> {
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.0.iter().filter_map(|(uid, seen)| Some((uid.clone(), seen.ended?))).collect()
    }

    /// Takes in a list: what was seen before and is not in it is gone.
    pub(super) async fn relist(&self) -> Result<(), String> {
        let table = || self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let before: BTreeSet<String> = table().0.keys().cloned().collect();
        let now = list(&self.api).await?;
        let mut table = table();
        let is_there = |uid: &&String| now.contains_key(*uid) || !before.contains(*uid);
        let there = table.0.keys().filter(is_there).cloned().collect();
        table.keep(&there);
        Ok(())
    }

    /// Whether the watch has seen everything that a list shows now; if not, what not.
    pub(super) async fn is_up_to_date(&self) -> Result<(), String> {
        let now = list(&self.api).await?;
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        for (uid, version) in &now {
            if table.0.get(uid).is_none_or(|seen| seen.version < *version || seen.job.deleted) {
                return Err(format!("the watch has not seen uid {uid} at {version}"));
            }
        }
        match table.0.iter().find(|(uid, seen)| !seen.job.deleted && !now.contains_key(*uid)) {
            Some((_, seen)) => Err(format!("the watch has not seen the end of {}", seen.job)),
            None => Ok(()),
        }
    }
}

impl Drop for JobWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The uids and versions of the Jobs that are there now.
async fn list(api: &Api<Job>) -> Result<BTreeMap<String, u64>, String> {
    let jobs = timeout(LIST, api.list(&ListParams::default())).await;
    let jobs = jobs.map_err(|_| "no list of Jobs".to_owned())?.map_err(|error| error.to_string())?;
    Ok(jobs.items.iter().map(read).map(|seen| (seen.job.uid, seen.version)).collect())
}

/// The Jobs that are there now.
pub(super) async fn present(client: Client, namespace: &str) -> Result<Vec<JobSeen>, String> {
    let api: Api<Job> = Api::namespaced(client, namespace);
    let jobs = api.list(&ListParams::default()).await.map_err(|error| format!("listing Jobs: {error}"))?;
    Ok(jobs.items.iter().map(|job| read(job).job).collect())
}

async fn run(api: Api<Job>, table: Arc<Mutex<Table>>, listed: watch::Sender<bool>) {
    // A watch that is renewed often is not stuck for long.
    let mut events = pin!(watcher::watcher(api, watcher::Config::default().timeout(20)));
    let mut in_list = BTreeSet::new();
    while let Some(event) = events.next().await {
        let mut pause = false;
        {
            let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
            match event {
                Ok(Event::Init) => in_list.clear(),
                Ok(Event::InitApply(job)) => {
                    in_list.insert(table.apply(&job));
                }
                Ok(Event::InitDone) => {
                    if !*listed.borrow() {
                        table.disown(&in_list);
                    }
                    table.keep(&in_list);
                    listed.send_replace(true);
                }
                Ok(Event::Apply(job)) => drop(table.apply(&job)),
                Ok(Event::Delete(job)) => table.delete(&job),
                Err(_) => pause = true,
            }
        }
        if pause {
            sleep(PAUSE).await;
        }
    }
}

impl Table {
    /// Takes in a state and returns its uid. What was true once stays: the annotations' identity, an end.
    fn apply(&mut self, job: &Job) -> String {
        let mut new = read(job);
        new.job.ours &= !self.1.contains(&new.job.uid);
        let uid = new.job.uid.clone();
        match self.0.get_mut(&uid) {
            None => drop(self.0.insert(uid.clone(), new)),
            Some(seen) if new.version >= seen.version => {
                let old = std::mem::replace(seen, new);
                seen.ended = old.ended.or(seen.ended);
                if old.job.ended.is_final() {
                    seen.job.ended = old.job.ended;
                }
                if old.job.ours {
                    let JobSeen { ours, request_id, request_seq, .. } = old.job;
                    seen.job = JobSeen { ours, request_id, request_seq, ..seen.job.clone() };
                }
                if seen.job.template.is_empty() {
                    seen.job.template = old.job.template;
                }
            }
            Some(_) => {}
        }
        uid
    }

    /// Of those that were there before anything was asked for, nothing is to be said.
    fn disown(&mut self, present: &BTreeSet<String>) {
        self.1.clone_from(present);
        self.0.values_mut().for_each(|seen| seen.job.ours = false);
    }

    /// It is gone, in this last state.
    fn delete(&mut self, job: &Job) {
        let uid = self.apply(job);
        if let Some(seen) = self.0.get_mut(&uid) {
            seen.job.deleted = true;
            seen.ended.get_or_insert_with(SystemTime::now);
        }
    }

    /// What is not in a list is gone, and its last state was not seen.
    fn keep(&mut self, in_list: &BTreeSet<String>) {
        let gone = self.0.iter_mut().filter(|(uid, seen)| !seen.job.deleted && !in_list.contains(*uid));
        for (_, seen) in gone {
            seen.job.deleted = true;
            if !seen.job.ended.is_final() {
                seen.job.ended = Ended::Unknown;
            }
        }
    }
}

fn read(job: &Job) -> Seen {
    let get =
        |map: &Option<BTreeMap<String, String>>, key: &str| map.as_ref().and_then(|m| m.get(key)).cloned();
    let meta = &job.metadata;
    let annotation = |key: &str| get(&meta.annotations, key);
    let template =
        get(&meta.labels, "natsjobs.dev/template").or_else(|| get(&meta.labels, "app.kubernetes.io/name"));
    let request_id = annotation("natsjobs.dev/request-id");
    let status = serde_json::to_value(&job.status).unwrap_or_default();
    let job = JobSeen {
        name: meta.name.clone().unwrap_or_default(),
        template: template.unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
        ours: request_id.is_some(),
        request_id: request_id.unwrap_or_default(),
        request_seq: annotation("natsjobs.dev/request-seq")
            .and_then(|seq| seq.parse().ok())
            .unwrap_or_default(),
        ended: Ended::of(&status),
        deleted: false,
        watched: true,
        settled: get(&meta.labels, "natsjobs.dev/outcome").is_some(),
        ttl: job.spec.as_ref().and_then(|spec| spec.ttl_seconds_after_finished),
    };
    let version =
        meta.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or_default();
    let ended = job.ended.is_final().then(SystemTime::now);
    Seen { job, version, ended }
}

#[cfg(test)]
mod tests;
