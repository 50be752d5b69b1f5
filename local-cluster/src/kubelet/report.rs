//! Tells the API what has become of a pod: the newest state, again and again until it is taken or the pod is gone.

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

/// No call is waited for longer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The wait after the first failure; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const MAX_PAUSE: Duration = Duration::from_secs(2);

/// The pod that it reports of.
#[derive(Clone)]
pub(super) struct Reporter {
    pub(super) api: Api<Pod>,
    pub(super) name: String,
    pub(super) uid: String,
}

/// The pod is not there any more, or is another one of its name.
pub(super) struct PodGone;

impl Reporter {
    /// Reports each change of `views`, and ends with the last: once nobody can change them any more.
    pub(super) async fn follow(&self, mut views: watch::Receiver<Vec<ContainerView>>) {
        let (taken, mut before) = (Timestamp::now(), PodStatus::default());
        loop {
            let current = views.borrow_and_update().clone();
            let status = pod_status(&current, &before, taken, Timestamp::now());
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

    /// Says which node the pod is on.
    pub(super) async fn bind(&self, node: &str) -> Result<(), PodGone> {
        self.patch(json!({"metadata": {"uid": self.uid}, "spec": {"nodeName": node}})).await
    }

    async fn patch(&self, patch: Value) -> Result<(), PodGone> {
        let patch = Patch::Merge(patch);
        self.retry(|| async { self.api.patch(&self.name, &PatchParams::default(), &patch).await }).await
    }

    /// Removes a pod that was being deleted, now that nothing of it runs.
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
            match timeout(TIMEOUT, call()).await {
                Ok(Ok(_)) => return Ok(()),
                // 409 and 422 answer to a uid that is another.
                Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409 | 422) => {
                    tracing::debug!(pod = self.name, %status, "a pod is gone");
                    return Err(PodGone);
                }
                Ok(Err(error)) => {
                    tracing::warn!(pod = self.name, %error, "a pod's state is told again later")
                }
                Err(_) => tracing::warn!(pod = self.name, "a pod's state was not taken in time"),
            }
            sleep(pause).await;
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }
}
