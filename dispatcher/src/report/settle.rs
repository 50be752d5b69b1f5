//! After the outcome is stored: TTL and mark onto the Job. And whether a Job is really gone.

use std::{collections::HashMap, sync::Arc};

use futures::future::BoxFuture;
use serde_json::json;

use crate::{
    contract::{
        job::{ANNOTATION_SETTLED, JobState, LABEL_KIND, LABEL_MANAGED_BY, LABEL_NAME, MANAGED_BY},
        names::Kind,
        template::Template,
    },
    kubernetes::{CallError, Jobs},
    status::Cluster,
};

/// The cluster as the status writer needs it.
pub struct Settler {
    jobs: Jobs,
    templates: Arc<HashMap<Kind, Arc<Template>>>,
}

impl Settler {
    /// Settles Jobs with the TTL of their kind's template; a kind without a template gets the mark only.
    pub fn new(jobs: Jobs, templates: Arc<HashMap<Kind, Arc<Template>>>) -> Self {
        Self { jobs, templates }
    }

    async fn gone(&self, state: &JobState) -> Result<bool, CallError> {
        let Some(found) = self.jobs.get(state.name.as_ref()).await? else { return Ok(true) };
        if found.metadata.uid.as_deref() != Some(state.uid.as_str()) {
            return Ok(true);
        }
        tracing::warn!(job = %state.name, "the Job lost the labels that the watch selects by; they are put back");
        let labels = json!({LABEL_KIND: state.kind, LABEL_NAME: state.kind, LABEL_MANAGED_BY: MANAGED_BY});
        let patch = json!({"metadata": {"uid": state.uid, "labels": labels}});
        match self.jobs.patch(state.name.as_ref(), &patch).await {
            Ok(_) => Ok(false),
            Err(error) if is_another(&error) => Ok(true),
            Err(error) => Err(error),
        }
    }

    async fn mark(&self, state: &JobState) -> Result<(), CallError> {
        let ttl = self.templates.get(&state.kind).and_then(|template| template.ttl_seconds);
        let mark = json!({"uid": state.uid, "annotations": {ANNOTATION_SETTLED: "true"}});
        let patch = match ttl {
            Some(ttl) => json!({"metadata": mark, "spec": {"ttlSecondsAfterFinished": ttl}}),
            None => json!({"metadata": mark}),
        };
        match self.jobs.patch(state.name.as_ref(), &patch).await {
            Ok(_) => Ok(()),
            Err(error) if is_another(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Whether the error of a patch says that this Job is gone: 404, or another uid (422 or 409, measured).
fn is_another(error: &CallError) -> bool {
    match error {
        CallError::Status(status) => {
            status.code == 404
                || (matches!(status.code, 409 | 422) && status.message.to_lowercase().contains("uid"))
        }
        _ => false,
    }
}

impl Cluster for Settler {
    fn is_gone(&self, state: &JobState) -> BoxFuture<'_, Result<bool, String>> {
        let state = state.clone();
        Box::pin(async move { self.gone(&state).await.map_err(|e| e.to_string()) })
    }

    fn settle(&self, state: &JobState) -> BoxFuture<'_, Result<(), String>> {
        let state = state.clone();
        Box::pin(async move { self.mark(&state).await.map_err(|e| e.to_string()) })
    }
}
