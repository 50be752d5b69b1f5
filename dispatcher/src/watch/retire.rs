//! The calls on Kubernetes that `status` needs: verify a deletion, retire a Job, read a log.

use std::{collections::HashMap, sync::Arc};

use dispatcher_core::{
    contract::{
        event::OutcomeResult,
        job::{
            ANNOTATION_JOB_NAME, ANNOTATION_OUTCOME_RECORD, ANNOTATION_REQUEST_HASH, ANNOTATION_REQUEST_ID,
            ANNOTATION_REQUEST_SEQ, JobObject, JobState, LABEL_MANAGED_BY, LABEL_NAME, LABEL_OUTCOME,
            LABEL_TEMPLATE, MANAGED_BY, outcome_record,
        },
        names::TemplateName,
    },
    request::{
        change_error::{ChangeFailure, classify_change},
        error::CallError,
    },
    template::Template,
};
use futures::future::BoxFuture;
use serde_json::{Value, json};

use crate::{
    cancellation::Cancellations,
    kube::{JobClient, refusals::Refusals},
    status::{Change, Cluster, Deletion},
    telemetry::metrics::{Metrics, Operation},
    watch::logs::Logs,
};

/// Kubernetes, as `status` needs it.
pub(crate) struct KubeCluster {
    client: JobClient,
    logs: Arc<Logs>,
    templates: Arc<HashMap<TemplateName, Arc<Template>>>,
    cancellations: Cancellations,
    refusals: Refusals,
}

/// The result of a patch of the Job with a uid.
enum Patched {
    Made,
    /// The Job does not exist.
    Gone,
    /// Kubernetes refuses it. The refusal is reported.
    Refused,
}

impl KubeCluster {
    /// Retires Jobs with the TTL of their template. A Job of an unknown template gets only the
    /// label.
    pub(crate) fn new(
        client: JobClient,
        templates: Arc<HashMap<TemplateName, Arc<Template>>>,
        cancellations: Cancellations,
        (refusals, metrics): (Refusals, Metrics),
    ) -> Self {
        let logs = Arc::new(Logs::new(client.logs(), metrics));
        Self { client, logs, templates, cancellations, refusals }
    }

    /// Whether the Job is deleted. Restores the labels and annotations of a Job that only left the
    /// watch's selector.
    async fn deleted(&self, state: &JobState) -> Result<Deletion, CallError> {
        let Some(found) = self.find(state).await? else { return Ok(Deletion::Deleted) };
        if is_identified(&found, state) {
            return Ok(Deletion::Exists);
        }
        tracing::warn!(job = %state.name, "job metadata was changed; restoring it");
        let labels =
            json!({LABEL_TEMPLATE: state.template, LABEL_NAME: state.template, LABEL_MANAGED_BY: MANAGED_BY});
        let annotations = json!({
            ANNOTATION_JOB_NAME: state.name,
            ANNOTATION_REQUEST_ID: state.request_id,
            ANNOTATION_REQUEST_SEQ: state.request_seq.to_string(),
            ANNOTATION_REQUEST_HASH: state.request_hash,
        });
        let patch = json!({"metadata": {"uid": state.uid, "labels": labels, "annotations": annotations}});
        Ok(match self.patch(state, Operation::Restore, &patch).await? {
            Patched::Made => Deletion::Exists,
            Patched::Gone => Deletion::Deleted,
            Patched::Refused => match state.clone().observed_as(&found) {
                Some(observed) => Deletion::Unrestored(Box::new(observed)),
                None => Deletion::Exists,
            },
        })
    }

    /// Patches the TTL and the outcome label onto the Job, with the record that binds the label to it.
    async fn patch_outcome(&self, state: &JobState, sequence: u64) -> Result<Change, CallError> {
        let ttl = self.templates.get(&state.template).and_then(|template| template.ttl_seconds);
        // A Job without a final condition is retired only after its outcome was `Deleted`.
        let result = state.outcome().map_or(OutcomeResult::Deleted, |outcome| outcome.result);
        let metadata = json!({
            "uid": state.uid,
            "labels": {LABEL_OUTCOME: result.as_str()},
            "annotations": {ANNOTATION_OUTCOME_RECORD: outcome_record(&state.uid, sequence)},
        });
        let patch = match ttl {
            Some(ttl) => json!({"metadata": metadata, "spec": {"ttlSecondsAfterFinished": ttl}}),
            None => json!({"metadata": metadata}),
        };
        self.patch(state, Operation::Retire, &patch).await.map(Change::from)
    }

    /// Removes an outcome label of another Job. The resourceVersion protects a label that the leader has
    /// set since.
    async fn remove_label(&self, state: &JobState) -> Result<Change, CallError> {
        let metadata = json!({
            "uid": state.uid,
            "resourceVersion": state.resource_version.to_string(),
            "labels": {LABEL_OUTCOME: null},
            "annotations": {ANNOTATION_OUTCOME_RECORD: null},
        });
        match self.patch(state, Operation::Unlabel, &json!({"metadata": metadata})).await {
            // The Job has changed. Its watch event follows.
            Err(error) if error.code() == Some(409) => Ok(Change::Made),
            patched => patched.map(Change::from),
        }
    }

    /// Patches the Job with this uid, and reports a refusal.
    ///
    /// For another uid the API server answers 422 (measured) or 409. A GET distinguishes it from
    /// other errors of these codes.
    async fn patch(
        &self,
        state: &JobState,
        operation: Operation,
        patch: &Value,
    ) -> Result<Patched, CallError> {
        let Err(error) = self.client.patch(state.name.as_ref(), patch).await else {
            return Ok(Patched::Made);
        };
        if matches!(error.code(), Some(404 | 409 | 422)) && self.find(state).await?.is_none() {
            return Ok(Patched::Gone);
        }
        match classify_change(&error, state.name.as_ref()) {
            ChangeFailure::Unavailable => Err(error),
            ChangeFailure::Refused => {
                self.refusals.report(state, operation, &error.to_string()).await;
                Ok(Patched::Refused)
            }
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

impl From<Patched> for Change {
    fn from(patched: Patched) -> Self {
        match patched {
            Patched::Made | Patched::Gone => Self::Made,
            Patched::Refused => Self::Refused,
        }
    }
}

impl Cluster for KubeCluster {
    fn is_deleted(&self, state: &JobState) -> BoxFuture<'_, Result<Deletion, String>> {
        let state = state.clone();
        Box::pin(async move { self.deleted(&state).await.map_err(|e| e.to_string()) })
    }

    fn is_cancelled(&self, state: &JobState) -> BoxFuture<'_, Result<bool, String>> {
        let uid = state.uid.clone();
        Box::pin(async move { self.cancellations.is_cancelled(&uid).await })
    }

    fn retire(&self, state: &JobState, sequence: u64) -> BoxFuture<'_, Result<Change, String>> {
        let state = state.clone();
        Box::pin(async move { self.patch_outcome(&state, sequence).await.map_err(|e| e.to_string()) })
    }

    fn remove_foreign_label(&self, state: &JobState) -> BoxFuture<'_, Result<Change, String>> {
        let state = state.clone();
        Box::pin(async move { self.remove_label(&state).await.map_err(|e| e.to_string()) })
    }

    fn report_unpublished(&self, state: &JobState, reason: &str) -> BoxFuture<'_, ()> {
        let (state, reason) = (state.clone(), reason.to_owned());
        Box::pin(async move { self.refusals.report(&state, Operation::Publish, &reason).await })
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
