//! Writes the state of a pod to the API. Failed writes are retried until the pod is removed.

use std::{fmt::Debug, future::Future, time::Duration};

use k8s_openapi::{
    api::core::v1::{Pod, PodStatus},
    jiff::Timestamp,
};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::status::{ContainerView, pod_status};

/// The time limit of one API call.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause after the first failure. It doubles with each further failure.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const MAX_PAUSE: Duration = Duration::from_secs(2);

/// Writes the state of one pod.
#[derive(Clone)]
pub(super) struct Reporter {
    pub(super) api: Api<Pod>,
    pub(super) name: String,
    pub(super) uid: String,
}

/// The pod was removed, or replaced by another pod of the same name.
pub(super) struct PodGone;

impl Reporter {
    /// Writes each change of `views` until their sender is dropped.
    pub(super) async fn follow(&self, mut views: watch::Receiver<Vec<ContainerView>>) {
        let (start, mut before) = (Timestamp::now(), PodStatus::default());
        loop {
            let current = views.borrow_and_update().clone();
            let status = pod_status(&current, &before, start, Timestamp::now());
            if self.status(&status).await.is_err() {
                return;
            }
            before = status;
            if views.changed().await.is_err() {
                return;
            }
        }
    }

    /// Writes a status.
    pub(super) async fn status(&self, status: &PodStatus) -> Result<(), PodGone> {
        let patch = Patch::Merge(json!({"metadata": {"uid": self.uid}, "status": status}));
        self.retry(|| async { self.api.patch_status(&self.name, &PatchParams::default(), &patch).await })
            .await
    }

    /// Assigns the pod to a node.
    pub(super) async fn bind(&self, node: &str) -> Result<(), PodGone> {
        self.patch(json!({"metadata": {"uid": self.uid}, "spec": {"nodeName": node}})).await
    }

    async fn patch(&self, patch: Value) -> Result<(), PodGone> {
        let patch = Patch::Merge(patch);
        self.retry(|| async { self.api.patch(&self.name, &PatchParams::default(), &patch).await }).await
    }

    /// Removes a terminating pod after its processes have ended.
    pub(super) async fn remove(&self) -> Result<(), PodGone> {
        let delete = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions { uid: Some(self.uid.clone()), resource_version: None }),
            ..DeleteParams::default()
        };
        self.retry(|| async { self.api.delete(&self.name, &delete).await }).await
    }

    async fn retry<T: Debug, F>(&self, call: impl Fn() -> F) -> Result<(), PodGone>
    where
        F: Future<Output = kube::Result<T>>,
    {
        let mut pause = FIRST_PAUSE;
        loop {
            match timeout(CALL_TIMEOUT, call()).await {
                Ok(Ok(_)) => return Ok(()),
                // The API answers a different uid with 409 or 422.
                Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409 | 422) => {
                    tracing::debug!(pod = self.name, %status, "pod removed");
                    return Err(PodGone);
                }
                Ok(Err(error)) => {
                    tracing::warn!(pod = self.name, %error, "pod write failed, retrying");
                }
                Err(_) => tracing::warn!(pod = self.name, "pod write timed out, retrying"),
            }
            sleep(pause).await;
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }
}
