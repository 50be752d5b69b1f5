//! After the outcome is stored: TTL and mark onto the Job. And whether a Job is really gone.

use std::{collections::HashMap, sync::Arc};

use futures::future::BoxFuture;
use serde_json::{Value, json};

use crate::{cancellation::Cancellations, kube::Jobs, status::Cluster, watch::logs::Logs};
use dispatcher_core::contract::event::OutcomeResult;
use dispatcher_core::{
    contract::{
        job::{
            ANNOTATION_REQUEST_HASH, ANNOTATION_REQUEST_ID, ANNOTATION_REQUEST_SEQ, JobObject, JobState,
            LABEL_MANAGED_BY, LABEL_NAME, LABEL_OUTCOME, LABEL_TEMPLATE, MANAGED_BY,
        },
        names::TemplateName,
    },
    request::error::CallError,
    template::Template,
};

/// The cluster as the status writer needs it.
pub struct KubeCluster {
    jobs: Jobs,
    logs: Arc<Logs>,
    templates: Arc<HashMap<TemplateName, Arc<Template>>>,
    cancels: Cancellations,
}

impl KubeCluster {
    /// Settles Jobs with the TTL of their template's template; a template without a template gets the mark only.
    pub fn new(
        jobs: Jobs,
        templates: Arc<HashMap<TemplateName, Arc<Template>>>,
        cancels: Cancellations,
    ) -> Self {
        let logs = Arc::new(Logs::new(jobs.logs()));
        Self { jobs, logs, templates, cancels }
    }

    async fn gone(&self, state: &JobState) -> Result<bool, CallError> {
        let Some(found) = self.find(state).await? else { return Ok(true) };
        if has_marks(&found, state) {
            return Ok(false);
        }
        tracing::warn!(job = %state.name, "the Job lost marks that it is known by; they are put back");
        let labels =
            json!({LABEL_TEMPLATE: state.template, LABEL_NAME: state.template, LABEL_MANAGED_BY: MANAGED_BY});
        let annotations = json!({
            ANNOTATION_REQUEST_ID: state.request_id,
            ANNOTATION_REQUEST_SEQ: state.request_seq.to_string(),
            ANNOTATION_REQUEST_HASH: state.request_hash,
        });
        let patch = json!({"metadata": {"uid": state.uid, "labels": labels, "annotations": annotations}});
        self.patch(state, &patch).await.map(|there| !there)
    }

    async fn mark(&self, state: &JobState) -> Result<(), CallError> {
        let ttl = self.templates.get(&state.template).and_then(|template| template.ttl_seconds);
        // A Job without a final condition is retired only after its outcome was `Deleted`.
        let result = state.outcome().map_or(OutcomeResult::Deleted, |outcome| outcome.result);
        let mark = json!({"uid": state.uid, "labels": {LABEL_OUTCOME: result.as_str()}});
        let patch = match ttl {
            Some(ttl) => json!({"metadata": mark, "spec": {"ttlSecondsAfterFinished": ttl}}),
            None => json!({"metadata": mark}),
        };
        self.patch(state, &patch).await.map(drop)
    }

    /// Patches this very Job; whether it is there. Another uid answers with 422 (measured) or 409: a look tells.
    async fn patch(&self, state: &JobState, patch: &Value) -> Result<bool, CallError> {
        match self.jobs.patch(state.name.as_ref(), patch).await {
            Ok(_) => Ok(true),
            Err(error) if matches!(error.code(), Some(404 | 409 | 422)) => {
                if self.find(state).await?.is_some() { Err(error) } else { Ok(false) }
            }
            Err(error) => Err(error),
        }
    }

    /// This very Job, where it is there.
    async fn find(&self, state: &JobState) -> Result<Option<JobObject>, CallError> {
        let found = self.jobs.get(state.name.as_ref()).await?;
        Ok(found.filter(|found| found.metadata.uid.as_deref() == Some(state.uid.as_str())))
    }
}

/// Whether the watch selects the Job, and reads it as the one that was spoken of.
fn has_marks(found: &JobObject, state: &JobState) -> bool {
    let selected = found.metadata.labels.as_ref().and_then(|labels| labels.get(LABEL_TEMPLATE));
    let same = |now: JobState| {
        (now.template, now.request_id, now.request_hash)
            == (state.template.clone(), state.request_id.clone(), state.request_hash.clone())
    };
    selected.is_some_and(|template| template == state.template.as_ref())
        && JobState::from_object(found).is_ok_and(same)
}

impl Cluster for KubeCluster {
    fn is_gone(&self, state: &JobState) -> BoxFuture<'_, Result<bool, String>> {
        let state = state.clone();
        Box::pin(async move { self.gone(&state).await.map_err(|e| e.to_string()) })
    }

    fn is_cancelled(&self, state: &JobState) -> BoxFuture<'_, Result<bool, String>> {
        let uid = state.uid.clone();
        Box::pin(async move { self.cancels.is_cancelled(&uid).await })
    }

    fn retire(&self, state: &JobState) -> BoxFuture<'_, Result<(), String>> {
        let state = state.clone();
        Box::pin(async move { self.mark(&state).await.map_err(|e| e.to_string()) })
    }

    fn log_tail(
        &self,
        template: &TemplateName,
        pod: &str,
        container: &str,
    ) -> BoxFuture<'static, Option<String>> {
        // A template without a template may have turned its logs off.
        let bounds = self.templates.get(template).and_then(|template| template.log_tail);
        let (logs, pod, container) = (self.logs.clone(), pod.to_owned(), container.to_owned());
        Box::pin(async move { logs.tail(&pod, &container, bounds?).await })
    }
}
