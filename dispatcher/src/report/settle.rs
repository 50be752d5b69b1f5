//! After the outcome is stored: TTL and mark onto the Job. And whether a Job is really gone.

use std::{collections::HashMap, sync::Arc};

use futures::future::BoxFuture;
use serde_json::{Value, json};

use crate::{
    cancels::Cancels,
    contract::{
        job::{
            ANNOTATION_REQUEST_HASH, ANNOTATION_REQUEST_ID, ANNOTATION_REQUEST_SEQ, ANNOTATION_SETTLED,
            JobObject, JobState, LABEL_KIND, LABEL_MANAGED_BY, LABEL_NAME, MANAGED_BY,
        },
        names::Kind,
        template::Template,
    },
    kubernetes::{CallError, Jobs},
    report::logs::Logs,
    status::Cluster,
};

/// The cluster as the status writer needs it.
pub struct Settler {
    jobs: Jobs,
    logs: Arc<Logs>,
    templates: Arc<HashMap<Kind, Arc<Template>>>,
    cancels: Cancels,
}

impl Settler {
    /// Settles Jobs with the TTL of their kind's template; a kind without a template gets the mark only.
    pub fn new(jobs: Jobs, templates: Arc<HashMap<Kind, Arc<Template>>>, cancels: Cancels) -> Self {
        let logs = Arc::new(Logs::new(jobs.logs()));
        Self { jobs, logs, templates, cancels }
    }

    async fn gone(&self, state: &JobState) -> Result<bool, CallError> {
        let Some(found) = self.find(state).await? else { return Ok(true) };
        if has_marks(&found, state) {
            return Ok(false);
        }
        tracing::warn!(job = %state.name, "the Job lost marks that it is known by; they are put back");
        let labels = json!({LABEL_KIND: state.kind, LABEL_NAME: state.kind, LABEL_MANAGED_BY: MANAGED_BY});
        let annotations = json!({
            ANNOTATION_REQUEST_ID: state.request_id,
            ANNOTATION_REQUEST_SEQ: state.request_seq.to_string(),
            ANNOTATION_REQUEST_HASH: state.request_hash,
        });
        let patch = json!({"metadata": {"uid": state.uid, "labels": labels, "annotations": annotations}});
        self.patch(state, &patch).await.map(|there| !there)
    }

    async fn mark(&self, state: &JobState) -> Result<(), CallError> {
        let ttl = self.templates.get(&state.kind).and_then(|template| template.ttl_seconds);
        let mark = json!({"uid": state.uid, "annotations": {ANNOTATION_SETTLED: "true"}});
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
    let selected = found.metadata.labels.as_ref().and_then(|labels| labels.get(LABEL_KIND));
    let same = |now: JobState| {
        (now.kind, now.request_id, now.request_hash)
            == (state.kind.clone(), state.request_id.clone(), state.request_hash.clone())
    };
    selected.is_some_and(|kind| kind == state.kind.as_ref()) && JobState::read(found).is_ok_and(same)
}

impl Cluster for Settler {
    fn is_gone(&self, state: &JobState) -> BoxFuture<'_, Result<bool, String>> {
        let state = state.clone();
        Box::pin(async move { self.gone(&state).await.map_err(|e| e.to_string()) })
    }

    fn is_cancelled(&self, state: &JobState) -> BoxFuture<'_, Result<bool, String>> {
        let uid = state.uid.clone();
        Box::pin(async move { self.cancels.is_cancelled(&uid).await })
    }

    fn settle(&self, state: &JobState) -> BoxFuture<'_, Result<(), String>> {
        let state = state.clone();
        Box::pin(async move { self.mark(&state).await.map_err(|e| e.to_string()) })
    }

    fn log_tail(&self, kind: &Kind, pod: &str, container: &str) -> BoxFuture<'static, Option<String>> {
        // A kind without a template may have turned its logs off.
        let bounds = self.templates.get(kind).and_then(|template| template.log_tail);
        let (logs, pod, container) = (self.logs.clone(), pod.to_owned(), container.to_owned());
        Box::pin(async move { logs.tail(&pod, &container, bounds?).await })
    }
}
