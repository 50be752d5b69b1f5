//! Plays the controller of the Jobs that Kubernetes' own one leaves alone ([`managed_template`]): each runs, and ends at
//! once, so that hundreds end in seconds without a pod. A Job whose name holds `fail` fails, one with `wait` waits.

use std::collections::BTreeSet;
use std::pin::pin;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::batch::v1::Job;
use kube::api::{Patch, PatchParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::world::{START, finished};

const DEADLINE: Duration = Duration::from_secs(5);

/// Stops when it is dropped.
pub(crate) struct Controller(JoinHandle<()>);

impl Controller {
    pub(crate) fn start(jobs: Api<Job>) -> Self {
        Self(tokio::spawn(async move {
            let mut states =
                pin!(watcher(jobs.clone(), watcher::Config::default()).default_backoff().applied_objects());
            let mut seen = BTreeSet::new();
            while let Some(state) = states.next().await {
                let Ok(job) = state else { continue };
                let name = job.name_any();
                if !name.contains("wait") && seen.insert(job.uid()) {
                    tokio::spawn(play(jobs.clone(), name));
                }
            }
        }))
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn play(jobs: Api<Job>, name: String) {
    let running = json!({"startTime": START, "active": 1, "ready": 0, "terminating": 0});
    set_status(&jobs, &name, &running).await;
    let ended = if name.contains("fail") {
        finished("Failed", 4, "BackoffLimitExceeded", "Job has reached the specified backoff limit")
    } else {
        finished("Complete", 0, "CompletionsReached", "Reached expected number of succeeded pods")
    };
    set_status(&jobs, &name, &ended).await;
}

/// However often the API server is killed meanwhile; until the Job is gone.
async fn set_status(jobs: &Api<Job>, name: &str, status: &Value) {
    let patch = Patch::Merge(json!({"status": status}));
    loop {
        match timeout(DEADLINE, jobs.patch_status(name, &PatchParams::default(), &patch)).await {
            Ok(Ok(_)) => return,
            Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 422) => return,
            _ => sleep(Duration::from_millis(100)).await,
        }
    }
}
