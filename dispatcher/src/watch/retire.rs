//! The calls on Kubernetes that `status` needs: verify a deletion, retire a Job, read a log.

use std::{collections::BTreeMap, sync::Arc};

use dispatcher_core::{
    contract::{
        event::OutcomeResult,
        job::{
            ANNOTATION_JOB_NAME, ANNOTATION_OUTCOME_RECORD, ANNOTATION_REQUEST_HASH, ANNOTATION_REQUEST_ID,
            ANNOTATION_REQUEST_SEQ, JobObject, JobState, LABEL_MANAGED_BY, LABEL_NAME, LABEL_OUTCOME,
            LABEL_TEMPLATE, MANAGED_BY, OutcomeLabel, outcome_record, status_of,
        },
        names::TemplateName,
    },
    request::{
        change_error::{ChangeFailure, classify_change},
        error::CallError,
    },
    status::{
        outcome_label::{is_foreign, is_watched},
        pod_observation::PodState,
    },
};
use futures::future::BoxFuture;
use serde_json::{Value, json};

use crate::{
    cancellation::Cancellations,
    kube::{JobClient, refusals::Refusals},
    nats::status_stream::{StatusStream, StoreError},
    status::{Change, Cluster, Deletion},
    telemetry::metrics::{Metrics, Operation},
    templates::served::ServedTemplates,
    watch::{ended_pods::EndedPods, logs::Logs, retired::RetiredJobs},
};

/// How often a Job is read again that changes between the GET and the patch.
const MAX_CONFLICTS: usize = 5;

/// Kubernetes, as `status` needs it.
pub(crate) struct KubeCluster {
    client: JobClient,
    logs: Arc<Logs>,
    templates: ServedTemplates,
    cancellations: Cancellations,
    refusals: Refusals,
    store: StatusStream,
    retired: RetiredJobs,
    ended_pods: Arc<EndedPods>,
}

/// The result of a patch of the Job with a uid.
enum Patched {
    /// Contains the Job after the patch.
    Made(Box<JobObject>),
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
        templates: ServedTemplates,
        cancellations: Cancellations,
        (refusals, metrics): (Refusals, Metrics),
        (store, retired): (StatusStream, RetiredJobs),
    ) -> Self {
        let logs = Arc::new(Logs::new(client.logs(), metrics));
        let ended_pods = Arc::new(EndedPods::new(client.pods()));
        Self { client, logs, templates, cancellations, refusals, store, retired, ended_pods }
    }

    /// Whether the Job is deleted. A Job that only left the selector of the watch is retired, or gets
    /// back its labels and annotations.
    async fn deleted(&self, state: &JobState) -> Result<Deletion, String> {
        for _ in 0..MAX_CONFLICTS {
            let found = self.client.get(state.name.as_ref()).await.map_err(|e| e.to_string())?;
            let Some(found) = found else { return Ok(Deletion::Deleted(None)) };
            if found.metadata.uid.as_deref() != Some(state.uid.as_str()) {
                return Ok(Deletion::Deleted(found.metadata.uid));
            }
            let Some((operation, patch)) = self.repair(state, &found).await? else {
                return Ok(Deletion::Exists);
            };
            tracing::warn!(job = %state.name, operation = operation.as_str(), "job metadata was changed; restoring it");
            let observed = match self.patch(state, operation, &patch).await {
                Ok(Patched::Made(now)) if is_watched(&now) && is_identified(&now, state) => {
                    return Ok(Deletion::Exists);
                }
                Ok(Patched::Made(now)) => {
                    self.refusals.report(state, operation, "each update changes it again").await;
                    *now
                }
                Ok(Patched::Gone) => return Ok(Deletion::Deleted(None)),
                Ok(Patched::Refused) => found,
                // The Job has changed since the GET. The watch delivers no change of a hidden Job.
                Err(error) if error.code() == Some(409) => continue,
                Err(error) => return Err(error.to_string()),
            };
            let observed = state.clone().observed_as(&observed);
            return Ok(match observed {
                Some(observed) => Deletion::Unrestored(Box::new(JobState { retired: false, ..observed })),
                None => Deletion::Exists,
            });
        }
        Err("the Job changes too often".to_owned())
    }

    /// The patch that brings a Job back into the watch, with the operation that it is. `None` if the
    /// watch selects the Job and its metadata is intact, or if the Job is retired.
    async fn repair(
        &self,
        state: &JobState,
        found: &JobObject,
    ) -> Result<Option<(Operation, Value)>, String> {
        let (labelled, identified) =
            (OutcomeLabel::of(&found.metadata) != OutcomeLabel::None, is_identified(found, state));
        if labelled && !self.has_foreign_label(state, found).await? {
            return Ok(None);
        }
        if identified && !labelled {
            return Ok(None);
        }
        let mut labels = BTreeMap::new();
        let mut annotations = BTreeMap::new();
        if !identified {
            labels.extend([
                (LABEL_TEMPLATE, json!(state.template)),
                (LABEL_NAME, json!(state.template)),
                (LABEL_MANAGED_BY, json!(MANAGED_BY)),
            ]);
            annotations.extend([
                (ANNOTATION_JOB_NAME, json!(state.name)),
                (ANNOTATION_REQUEST_ID, json!(state.request_id)),
                (ANNOTATION_REQUEST_SEQ, json!(state.request_seq.to_string())),
                (ANNOTATION_REQUEST_HASH, json!(state.request_hash)),
            ]);
        }
        let mut metadata = BTreeMap::from([("uid", json!(state.uid))]);
        if labelled {
            labels.insert(LABEL_OUTCOME, Value::Null);
            annotations.insert(ANNOTATION_OUTCOME_RECORD, Value::Null);
            // Protects a label that another replica has set since.
            metadata.insert("resourceVersion", json!(found.metadata.resource_version));
        }
        metadata.insert("labels", json!(labels));
        metadata.insert("annotations", json!(annotations));
        let operation = if labelled { Operation::Unlabel } else { Operation::Restore };
        Ok(Some((operation, json!({ "metadata": metadata }))))
    }

    /// Whether the outcome label of `found` does not belong to it.
    async fn has_foreign_label(&self, state: &JobState, found: &JobObject) -> Result<bool, String> {
        let last = match self.store.last(&state.template, &state.name).await {
            Ok(last) => last.and_then(|last| last.known.last),
            Err(StoreError::Foreign(_)) => None,
            Err(error) => return Err(error.to_string()),
        };
        let newest = self.store.newest_sequence().await.map_err(|e| e.to_string())?;
        let job = (state.uid.as_str(), status_of(found).result().is_some());
        Ok(is_foreign(OutcomeLabel::of(&found.metadata), job, last.as_ref(), newest))
    }

    /// Patches the TTL and the outcome label onto the Job, with the record that binds the label to it.
    async fn patch_outcome(&self, state: &JobState, sequence: u64) -> Result<Change, CallError> {
        let ttl = self.templates.get(&state.template).and_then(|template| template.ttl_seconds);
        // The condition counts, not the stored outcome: that is `Deleted` if a GET did not find the Job.
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
        // Before the patch, whose watch event may arrive before its answer.
        self.retired.add(&state.uid);
        self.patch(state, Operation::Retire, &patch).await.map(Change::from)
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
        let error = match self.client.patch(state.name.as_ref(), patch).await {
            Ok(patched) => return Ok(Patched::Made(Box::new(patched))),
            Err(error) => error,
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

/// Whether the metadata of the Job identifies it as `state`, and it has the label of its template.
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
            Patched::Made(_) | Patched::Gone => Self::Made,
            Patched::Refused => Self::Refused,
        }
    }
}

impl Cluster for KubeCluster {
    fn is_deleted(&self, state: &JobState) -> BoxFuture<'_, Result<Deletion, String>> {
        let state = state.clone();
        Box::pin(async move { self.deleted(&state).await })
    }

    fn is_cancelled(&self, state: &JobState) -> BoxFuture<'_, Result<bool, String>> {
        let uid = state.uid.clone();
        Box::pin(async move { self.cancellations.is_cancelled(&uid).await })
    }

    fn retire(&self, state: &JobState, sequence: u64) -> BoxFuture<'_, Result<Change, String>> {
        let state = state.clone();
        Box::pin(async move { self.patch_outcome(&state, sequence).await.map_err(|e| e.to_string()) })
    }

    fn report_unpublished(&self, state: &JobState, reason: &str) -> BoxFuture<'_, ()> {
        let (state, reason) = (state.clone(), reason.to_owned());
        Box::pin(async move { self.refusals.report(&state, Operation::Publish, &reason).await })
    }

    fn ended_pods(&self, uid: &str) -> BoxFuture<'static, Vec<PodState>> {
        let (lists, uid) = (self.ended_pods.clone(), uid.to_owned());
        Box::pin(async move { lists.of_job(uid).await })
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
