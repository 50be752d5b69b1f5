//! The calls on Kubernetes that `status` needs: verify a deletion, retire a Job, read a log.

use std::{collections::HashMap, sync::Arc};

use dispatcher_core::{
    contract::{
        event::OutcomeResult,
        job::{
            ANNOTATION_REQUEST_HASH, ANNOTATION_REQUEST_ID, ANNOTATION_REQUEST_SEQ, JobObject, JobState,
            LABEL_MANAGED_BY, LABEL_NAME, LABEL_OUTCOME, LABEL_TEMPLATE, MANAGED_BY,
        },
        names::TemplateName,
    },
    request::error::CallError,
    template::Template,
};
use futures::future::BoxFuture;
use serde_json::{Value, json};

use crate::{
    cancellation::Cancellations, kube::JobClient, status::Cluster, telemetry::metrics::Metrics,
    watch::logs::Logs,
};

/// Kubernetes, as `status` needs it.
pub(crate) struct KubeCluster {
    client: JobClient,
    logs: Arc<Logs>,
    templates: Arc<HashMap<TemplateName, Arc<Template>>>,
    cancellations: Cancellations,
}

impl KubeCluster {
    /// Retires Jobs with the TTL of their template. A Job of an unknown template gets only the
    /// label.
    pub(crate) fn new(
        client: JobClient,
        templates: Arc<HashMap<TemplateName, Arc<Template>>>,
        cancellations: Cancellations,
        metrics: Metrics,
    ) -> Self {
        let logs = Arc::new(Logs::new(client.logs(), metrics));
        Self { client, logs, templates, cancellations }
    }

    /// Whether the Job is deleted. Restores the labels and annotations of a Job that only left the
    /// watch's selector.
    async fn deleted(&self, state: &JobState) -> Result<bool, CallError> {
        let Some(found) = self.find(state).await? else { return Ok(true) };
        if is_identified(&found, state) {
            return Ok(false);
        }
        tracing::warn!(job = %state.name, "job metadata was changed; restoring it");
        let labels =
            json!({LABEL_TEMPLATE: state.template, LABEL_NAME: state.template, LABEL_MANAGED_BY: MANAGED_BY});
        let annotations = json!({
            ANNOTATION_REQUEST_ID: state.request_id,
            ANNOTATION_REQUEST_SEQ: state.request_seq.to_string(),
            ANNOTATION_REQUEST_HASH: state.request_hash,
        });
        let patch = json!({"metadata": {"uid": state.uid, "labels": labels, "annotations": annotations}});
        self.patch(state, &patch).await.map(|exists| !exists)
    }

    /// Patches the TTL and the outcome label onto the Job.
    async fn patch_outcome(&self, state: &JobState) -> Result<(), CallError> {
        let ttl = self.templates.get(&state.template).and_then(|template| template.ttl_seconds);
        // A Job without a final condition is retired only after its outcome was `Deleted`.
        let result = state.outcome().map_or(OutcomeResult::Deleted, |outcome| outcome.result);
        let metadata = json!({"uid": state.uid, "labels": {LABEL_OUTCOME: result.as_str()}});
        let patch = match ttl {
            Some(ttl) => json!({"metadata": metadata, "spec": {"ttlSecondsAfterFinished": ttl}}),
            None => json!({"metadata": metadata}),
        };
        self.patch(state, &patch).await.map(drop)
    }

    /// Patches the Job with this uid. Returns whether it exists.
    ///
    /// For another uid the API server answers 422 (measured) or 409. A GET distinguishes it from
    /// other errors of these codes.
    async fn patch(&self, state: &JobState, patch: &Value) -> Result<bool, CallError> {
        match self.client.patch(state.name.as_ref(), patch).await {
            Ok(_) => Ok(true),
            Err(error) if matches!(error.code(), Some(404 | 409 | 422)) => {
                if self.find(state).await?.is_some() { Err(error) } else { Ok(false) }
            }
            Err(error) => Err(error),
        }
    }

    /// The Job with this uid, if it exists.
    async fn find(&self, state: &JobState) -> Result<Option<JobObject>, CallError> {
        let found = self.client.get(state.name.as_ref()).await?;
        Ok(found.filter(|found| found.metadata.uid.as_deref() == Some(state.uid.as_str())))
    }
}

/// Whether the watch selects the Job, and its metadata identifies it as `state`.
fn is_identified(found: &JobObject, state: &JobState) -> bool {
    let selected = found.metadata.labels.as_ref().and_then(|labels| labels.get(LABEL_TEMPLATE));
    let is_same = |now: JobState| {
        (now.template, now.request_id, now.request_hash)
            == (state.template.clone(), state.request_id.clone(), state.request_hash.clone())
    };
    selected.is_some_and(|template| template == state.template.as_ref())
        && JobState::from_object(found).is_ok_and(is_same)
}

impl Cluster for KubeCluster {
    fn is_deleted(&self, state: &JobState) -> BoxFuture<'_, Result<bool, String>> {
        let state = state.clone();
        Box::pin(async move { self.deleted(&state).await.map_err(|e| e.to_string()) })
    }

    fn is_cancelled(&self, state: &JobState) -> BoxFuture<'_, Result<bool, String>> {
        let uid = state.uid.clone();
        Box::pin(async move { self.cancellations.is_cancelled(&uid).await })
    }

    fn retire(&self, state: &JobState) -> BoxFuture<'_, Result<(), String>> {
        let state = state.clone();
        Box::pin(async move { self.patch_outcome(&state).await.map_err(|e| e.to_string()) })
    }

    fn log_tail(
        &self,
        template: &TemplateName,
        pod: &str,
        container: &str,
    ) -> BoxFuture<'static, Option<String>> {
        // An unknown template may have disabled logs.
        let bounds = self.templates.get(template).and_then(|template| template.log_tail);
        let (logs, pod, container) = (self.logs.clone(), pod.to_owned(), container.to_owned());
        Box::pin(async move { logs.tail(&pod, &container, bounds?).await })
    }
}
