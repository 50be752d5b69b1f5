//! Watches every Job of the namespace and keeps its last state.

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

use super::history::{Finish, JobRecord};

/// The interval between two attempts to reach the API server: short, so that few states are missed.
const RETRY_INTERVAL: Duration = Duration::from_millis(200);
const LIST: Duration = Duration::from_secs(10);

/// A Job and the resourceVersion of its last state.
#[derive(Debug, Clone, Default)]
struct Seen {
    job: JobRecord,
    version: u64,
    finish: Option<SystemTime>,
}

/// Every observed uid, and those that existed before the first request.
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
    /// Starts the watch and waits for its first list. A later state is missed only if the watch is
    /// broken for long.
    pub(super) async fn start(client: Client, namespace: &str) -> Result<Self, String> {
        let api: Api<Job> = Api::namespaced(client, namespace);
        let table = Arc::new(Mutex::new(Table::default()));
        let (listed, mut first) = watch::channel(false);
        let task = tokio::spawn(run(api.clone(), table.clone(), listed));
        let this = Self { api, table, task };
        let first = timeout(TIMEOUT, first.wait_for(|listed| *listed)).await;
        first
            .map(drop)
            .map_err(|_| format!("listing the Jobs in {namespace}: timed out after {TIMEOUT:?}"))?;
        Ok(this)
    }

    /// The Jobs observed so far.
    pub(super) fn jobs(&self) -> Vec<JobRecord> {
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.0.values().map(|seen| seen.job.clone()).collect()
    }

    /// When each Job was first observed as finished or deleted, by its uid.
    pub(super) fn ends(&self) -> BTreeMap<String, SystemTime> {
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.0.iter().filter_map(|(uid, seen)| Some((uid.clone(), seen.finish?))).collect()
    }

    /// Lists the Jobs and marks those that are missing as deleted.
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

    /// Checks that the watch has observed everything that a list contains.
    pub(super) async fn is_up_to_date(&self) -> Result<(), String> {
        let now = list(&self.api).await?;
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        for (uid, version) in &now {
            if table.0.get(uid).is_none_or(|seen| seen.version < *version || seen.job.deleted) {
                return Err(format!("the watch has not observed uid {uid} at {version}"));
            }
        }
        match table.0.iter().find(|(uid, seen)| !seen.job.deleted && !now.contains_key(*uid)) {
            Some((_, seen)) => Err(format!("the watch has not observed the deletion of {}", seen.job)),
            None => Ok(()),
        }
    }
}

impl Drop for JobWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The uids and resourceVersions of the existing Jobs.
async fn list(api: &Api<Job>) -> Result<BTreeMap<String, u64>, String> {
    let jobs = timeout(LIST, api.list(&ListParams::default())).await;
    let jobs = jobs.map_err(|_| "listing Jobs: timed out".to_owned())?.map_err(|error| error.to_string())?;
    Ok(jobs.items.iter().map(read).map(|seen| (seen.job.uid, seen.version)).collect())
}

/// The existing Jobs.
pub(super) async fn present(client: Client, namespace: &str) -> Result<Vec<JobRecord>, String> {
    let api: Api<Job> = Api::namespaced(client, namespace);
    let jobs = api.list(&ListParams::default()).await.map_err(|error| format!("listing Jobs: {error}"))?;
    Ok(jobs.items.iter().map(|job| read(job).job).collect())
}

async fn run(api: Api<Job>, table: Arc<Mutex<Table>>, listed: watch::Sender<bool>) {
    // A short watch timeout, so that a stuck watch is replaced soon.
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
            sleep(RETRY_INTERVAL).await;
        }
    }
}

impl Table {
    /// Stores a state and returns its uid. Annotations and a final condition persist once observed.
    fn apply(&mut self, job: &Job) -> String {
        let mut new = read(job);
        new.job.managed &= !self.1.contains(&new.job.uid);
        let uid = new.job.uid.clone();
        match self.0.get_mut(&uid) {
            None => drop(self.0.insert(uid.clone(), new)),
            Some(seen) if new.version >= seen.version => {
                let old = std::mem::replace(seen, new);
                seen.finish = old.finish.or(seen.finish);
                if old.job.finish.is_final() {
                    seen.job.finish = old.job.finish;
                }
                if old.job.managed {
                    let JobRecord { managed, request_id, request_seq, .. } = old.job;
                    seen.job = JobRecord { managed, request_id, request_seq, ..seen.job.clone() };
                }
                if seen.job.template.is_empty() {
                    seen.job.template = old.job.template;
                }
            }
            Some(_) => {}
        }
        uid
    }

    /// Marks Jobs that existed before the first request as unmanaged.
    fn disown(&mut self, present: &BTreeSet<String>) {
        self.1.clone_from(present);
        self.0.values_mut().for_each(|seen| seen.job.managed = false);
    }

    /// Marks a Job as deleted, in this last state.
    fn delete(&mut self, job: &Job) {
        let uid = self.apply(job);
        if let Some(seen) = self.0.get_mut(&uid) {
            seen.job.deleted = true;
            seen.finish.get_or_insert_with(SystemTime::now);
        }
    }

    /// Marks Jobs that are missing from a list as deleted; their last state is unknown.
    fn keep(&mut self, in_list: &BTreeSet<String>) {
        let gone = self.0.iter_mut().filter(|(uid, seen)| !seen.job.deleted && !in_list.contains(*uid));
        for (_, seen) in gone {
            seen.job.deleted = true;
            if !seen.job.finish.is_final() {
                seen.job.finish = Finish::Unknown;
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
    let job = JobRecord {
        name: meta.name.clone().unwrap_or_default(),
        template: template.unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
        managed: request_id.is_some(),
        request_id: request_id.unwrap_or_default(),
        request_seq: annotation("natsjobs.dev/request-seq")
            .and_then(|seq| seq.parse().ok())
            .unwrap_or_default(),
        finish: Finish::of(&status),
        deleted: false,
        watched: true,
        retired: get(&meta.labels, "natsjobs.dev/outcome").is_some(),
        ttl: job.spec.as_ref().and_then(|spec| spec.ttl_seconds_after_finished),
    };
    let version =
        meta.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or_default();
    let finish = job.finish.is_final().then(SystemTime::now);
    Seen { job, version, finish }
}

#[cfg(test)]
mod tests;
