//! A Job controller for tests: it ends Jobs without running pods, so that hundreds end in seconds.
//!
//! It acts on Jobs of [`managed_template`], which Kubernetes' own controller ignores. A Job whose
//! name contains `fail` fails; one whose name contains `wait` stays pending; all others complete.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::batch::v1::Job;
use kube::api::{Patch, PatchParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::paths;
use crate::templates::without_limit;

const CALL_TIMEOUT: Duration = Duration::from_secs(5);
const RETRY_INTERVAL: Duration = Duration::from_millis(100);
/// How many Jobs are ended at a time, as Kubernetes' own controller bounds its syncs. Without a
/// bound, a flood of Jobs makes each call time out and be repeated.
const WORKERS: usize = 20;

/// The start time of every Job in tests. Kubernetes does not let it change.
pub const START_TIME: &str = "2026-01-01T00:00:00Z";

/// A running controller; it stops when this is dropped.
#[derive(Debug)]
pub struct JobController(JoinHandle<()>);

impl JobController {
    /// Watches `jobs` and ends each new Job.
    #[must_use]
    pub fn start(jobs: Api<Job>) -> Self {
        Self(tokio::spawn(async move {
            let config = watcher::Config::default();
            let mut states = pin!(watcher(jobs.clone(), config).default_backoff().applied_objects());
            let mut seen = BTreeSet::new();
            let workers = Arc::new(Semaphore::new(WORKERS));
            while let Some(state) = states.next().await {
                let Ok(job) = state else { continue };
                let name = job.name_any();
                if !name.contains("wait") && seen.insert(job.uid()) {
                    let (jobs, workers) = (jobs.clone(), workers.clone());
                    tokio::spawn(async move {
                        let _worker = workers.acquire().await;
                        run_job(jobs, name).await;
                    });
                }
            }
        }))
    }
}

impl Drop for JobController {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn run_job(jobs: Api<Job>, name: String) {
    let running = json!({"startTime": START_TIME, "active": 1, "ready": 0, "terminating": 0});
    set_status(&jobs, &name, &running).await;
    let finished = if name.contains("fail") {
        let message = "Job has reached the specified backoff limit";
        finished_status("Failed", 4, "BackoffLimitExceeded", message)
    } else {
        let message = "Reached expected number of succeeded pods";
        finished_status("Complete", 0, "CompletionsReached", message)
    };
    set_status(&jobs, &name, &finished).await;
}

/// Retries until the API server accepts the status or the Job is deleted: tests kill API servers.
async fn set_status(jobs: &Api<Job>, name: &str, status: &Value) {
    let patch = Patch::Merge(json!({"status": status}));
    loop {
        match timeout(CALL_TIMEOUT, jobs.patch_status(name, &PatchParams::default(), &patch)).await {
            Ok(Ok(_)) => return,
            Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 422) => return,
            _ => sleep(RETRY_INTERVAL).await,
        }
    }
}

/// A folder with the shipped template `simple`, changed so that Kubernetes' own Job controller
/// ignores its Jobs (`spec.managedBy`) and the test sets their status. It has no concurrency limit.
///
/// # Panics
/// If the shipped template cannot be read or does not contain the expected line.
#[must_use]
pub fn managed_template() -> (tempfile::TempDir, PathBuf) {
    let folder = paths::temp_dir("templates").unwrap();
    let simple = std::fs::read_to_string(paths::workspace().join("deploy/templates/simple.yaml")).unwrap();
    let simple = without_limit(&simple);
    let line = "      backoffLimit: 3\n";
    assert!(simple.contains(line), "deploy/templates/simple.yaml: no line {line:?}");
    let managed_by = "      managedBy: tests.example.org/controller\n";
    let managed = simple.replace(line, &format!("{line}{managed_by}"));
    std::fs::write(folder.path().join("simple.yaml"), managed).unwrap();
    let path = folder.path().to_owned();
    (folder, path)
}

/// A final status as the Job controller writes it. Its condition is of now: the TTL counts from it.
#[must_use]
pub fn finished_status(condition: &str, failed: u32, reason: &str, message: &str) -> Value {
    let time = now();
    let (interim, last) = match condition {
        "Complete" => ("SuccessCriteriaMet", "Complete"),
        _ => ("FailureTarget", "Failed"),
    };
    let condition = |type_: &str| {
        json!({"type": type_, "status": "True", "reason": reason, "message": message,
               "lastProbeTime": time, "lastTransitionTime": time})
    };
    let mut status = json!({
        "startTime": START_TIME, "failed": failed, "active": 0, "ready": 0, "terminating": 0,
        "conditions": [condition(interim), condition(last)],
    });
    // Before 1.31, only Jobs with a success policy have this condition.
    if paths::is_oldest_kubernetes() && last == "Complete" {
        status["conditions"] = json!([condition(last)]);
    }
    if last == "Complete" {
        status["completionTime"] = now().into();
        status["succeeded"] = 1.into();
    }
    status
}

/// The current time in whole seconds, as Kubernetes writes times.
#[must_use]
pub fn now() -> String {
    k8s_openapi::jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
