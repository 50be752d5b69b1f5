//! Runs and ends pods by patches of their status, as a kubelet does.

use std::pin::pin;

use dispatcher_tests::job_controller::now;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

/// The pods that are patched at the same time.
const CONCURRENT_PODS: usize = 16;

/// Runs every pod of a namespace and ends it with exit code 0; stops when it is dropped.
pub(crate) struct Pods(JoinHandle<()>);

impl Pods {
    pub(crate) fn run(pods: &Api<Pod>) -> Self {
        let pods = pods.clone();
        Self(tokio::spawn(async move {
            let created =
                watcher(pods.clone(), watcher::Config::default()).default_backoff().applied_objects();
            let pending = created.try_filter(|pod| {
                let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
                futures::future::ready(phase.is_none_or(|phase| phase == "Pending"))
            });
            let done = pending.map(|pod| run_pod(&pods, pod)).buffer_unordered(CONCURRENT_PODS);
            let mut done = pin!(done);
            while let Some(result) = done.next().await {
                if let Err(error) = result {
                    eprintln!("pods of the benchmark: {error}");
                }
            }
        }))
    }
}

impl Drop for Pods {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn run_pod(pods: &Api<Pod>, pod: Result<Pod, watcher::Error>) -> Result<(), String> {
    let name = pod.map_err(|error| error.to_string())?.name_any();
    for status in [running_pod(), ended_pod()] {
        let patch = Patch::Merge(json!({"status": status}));
        let patched = pods.patch_status(&name, &PatchParams::default(), &patch).await;
        patched.map_err(|error| format!("{name}: {error}"))?;
    }
    Ok(())
}

fn running_pod() -> Value {
    let now = now();
    json!({"phase": "Running", "startTime": now, "containerStatuses": [{
        "name": "simple-job", "image": "i", "imageID": "i", "ready": true, "restartCount": 0,
        "state": {"running": {"startedAt": now}}}]})
}

/// The status of a pod whose container exited with 0.
pub(crate) fn ended_pod() -> Value {
    let now = now();
    let terminated = json!({"exitCode": 0, "reason": "Completed", "startedAt": now, "finishedAt": now});
    json!({"phase": "Succeeded", "startTime": now, "containerStatuses": [{
        "name": "simple-job", "image": "i", "imageID": "i", "ready": false, "restartCount": 0,
        "state": {"terminated": terminated}}]})
}
