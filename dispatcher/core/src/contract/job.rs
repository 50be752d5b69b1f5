//! The labels and annotations that the dispatcher sets on a Job, and the observed state of a Job.

use std::{collections::BTreeMap, time::SystemTime};

use kube_core::{ObjectMeta, object::NotUsed};
use serde_json::Value;

use crate::contract::{
    event::{EventType, Outcome, OutcomeResult, Stall, StatusEvent},
    job_status::JobStatus,
    names::{JobName, RequestId, TemplateName},
    object::Object,
    submitter::Submitter,
    trace::{ANNOTATION_TRACEPARENT, ANNOTATION_TRACESTATE, Trace},
};

/// The label selector of the watches of Jobs: the Jobs of all templates that are not retired.
pub const SELECTOR_NOT_RETIRED: &str = concat!(prefixed!("template"), ",!", prefixed!("outcome"));
/// The label selector of the Jobs with an outcome label.
pub const SELECTOR_RETIRED: &str = concat!(prefixed!("template"), ",", prefixed!("outcome"));
/// Label with the template. The watches select by it.
pub const LABEL_TEMPLATE: &str = prefixed!("template");
/// Label with the template, as Kubernetes recommends.
pub const LABEL_NAME: &str = "app.kubernetes.io/name";
/// Label with the program that manages the object, as Kubernetes recommends.
pub const LABEL_MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// The value of [`LABEL_MANAGED_BY`].
pub const MANAGED_BY: &str = "dispatcher";
/// Label with the result of the stored outcome. A finished Job with this label and a matching
/// [`ANNOTATION_OUTCOME_RECORD`] is retired: the dispatcher neither watches it nor publishes about it.
pub const LABEL_OUTCOME: &str = prefixed!("outcome");
/// Annotation that binds the outcome label to its Job: `<uid>/<sequence of the outcome in
/// JOB_STATUS>`. A label that was copied from another Job has the uid of that Job here.
pub const ANNOTATION_OUTCOME_RECORD: &str = prefixed!("outcome-record");
/// Annotation with the name that the request gave the Job. It differs from the Job's name if the Job
/// is a copy under another name.
pub const ANNOTATION_JOB_NAME: &str = prefixed!("job-name");
/// Annotation with the request id.
pub const ANNOTATION_REQUEST_ID: &str = prefixed!("request-id");
/// Annotation with the request's sequence in `JOBS`.
pub const ANNOTATION_REQUEST_SEQ: &str = prefixed!("request-seq");
/// Annotation with the hash of the request.
pub const ANNOTATION_REQUEST_HASH: &str = prefixed!("request-hash");
/// Annotation with the hash of the template's version that the Job was made from.
pub const ANNOTATION_TEMPLATE_HASH: &str = prefixed!("template-hash");
/// Annotation with the submitter of the request, as JSON.
pub const ANNOTATION_SUBMITTER: &str = prefixed!("submitter");

/// A `batch/v1` Job with only its metadata and status decoded.
pub type JobObject = Object<NotUsed, Value>;

/// Whether a Job exists, and how that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// The Job is in the cluster.
    Present,
    /// The watch delivered a deletion. The Job may still exist: the watch also delivers a deletion
    /// if the Job loses the label that the watch selects by.
    DeletedUnverified,
    /// The Job is deleted, and the watch delivered its last state.
    Deleted,
    /// The API server does not list the Job. The state is the last published one.
    MissingUnverified,
    /// The Job is deleted, and no watch delivered its last state.
    Missing,
}

/// The observed state of a Job that the dispatcher created.
#[derive(Debug, Clone, PartialEq)]
pub struct JobState {
    /// The template, from the label.
    pub template: TemplateName,
    /// The name.
    pub name: JobName,
    /// The namespace.
    pub namespace: String,
    /// The uid.
    pub uid: String,
    /// The id of the request that created it.
    pub request_id: RequestId,
    /// The sequence of that request.
    pub request_seq: u64,
    /// The hash of that request; empty if the state comes from an event without the hash.
    pub request_hash: String,
    /// The resourceVersion. As a number, it orders the states of one Job (Kubernetes KEP-5504). Two
    /// Jobs are not ordered by it: a restored etcd counts from a lower version again.
    pub resource_version: u64,
    /// Whether the Job is retired: its outcome is stored.
    pub retired: bool,
    /// Whether the Job is known to be the current one of its name, although the last event of its
    /// subject belongs to another Job.
    pub confirmed: bool,
    /// Whether the Job exists.
    pub presence: Presence,
    /// Whether a client cancelled the Job. `false` until the Job is known to be deleted.
    pub cancelled: bool,
    /// The `creationTimestamp`; `None` if the API server does not list the Job.
    pub creation_time: Option<SystemTime>,
    /// The trace that the Job belongs to, from the annotations.
    pub trace: Option<Trace>,
    /// The hash of the template's version, from the annotations.
    pub template_hash: Option<Box<str>>,
    /// The submitter of the request, from the annotations.
    pub submitter: Option<Box<Submitter>>,
    /// The status.
    pub status: JobStatus,
}

/// A field, label or annotation that the dispatcher's Jobs have is missing or invalid. Contains its
/// name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the Job has no valid {0}: the dispatcher did not create it, or it was changed")]
pub struct UnmanagedJob(&'static str);

impl JobState {
    /// Decodes a Job.
    ///
    /// # Errors
    /// If the dispatcher did not create the Job, or a label or annotation was changed.
    pub fn from_object(object: &JobObject) -> Result<Self, UnmanagedJob> {
        let meta = &object.metadata;
        let get = |map: &Option<BTreeMap<String, String>>, key: &'static str| {
            map.as_ref().and_then(|map| map.get(key)).cloned().ok_or(UnmanagedJob(key))
        };
        if get(&meta.labels, LABEL_MANAGED_BY)? != MANAGED_BY {
            return Err(UnmanagedJob(LABEL_MANAGED_BY));
        }
        // Both labels contain the template. If a user removes one, the other identifies it. If they
        // differ, admission control changed one, and the intake restores it.
        let labels = (get(&meta.labels, LABEL_TEMPLATE).ok(), get(&meta.labels, LABEL_NAME).ok());
        let template = match labels {
            (Some(template), Some(name)) if template != name => return Err(UnmanagedJob(LABEL_TEMPLATE)),
            (template, name) => template.or(name).ok_or(UnmanagedJob(LABEL_TEMPLATE))?,
        };
        let invalid = |key: &'static str| move |_| UnmanagedJob(key);
        let name =
            JobName::try_from(meta.name.clone().unwrap_or_default()).map_err(invalid("metadata.name"))?;
        if get(&meta.annotations, ANNOTATION_JOB_NAME).is_ok_and(|created| created != name.as_ref()) {
            return Err(UnmanagedJob(ANNOTATION_JOB_NAME));
        }
        let status = status_of(object);
        Ok(Self {
            template: TemplateName::try_from(template).map_err(invalid(LABEL_TEMPLATE))?,
            name,
            namespace: meta.namespace.clone().unwrap_or_default(),
            uid: meta.uid.clone().ok_or(UnmanagedJob("metadata.uid"))?,
            request_id: RequestId::try_from(get(&meta.annotations, ANNOTATION_REQUEST_ID)?)
                .map_err(invalid(ANNOTATION_REQUEST_ID))?,
            request_seq: get(&meta.annotations, ANNOTATION_REQUEST_SEQ)?
                .parse()
                .map_err(|_| UnmanagedJob(ANNOTATION_REQUEST_SEQ))?,
            request_hash: get(&meta.annotations, ANNOTATION_REQUEST_HASH)?,
            resource_version: resource_version(meta).ok_or(UnmanagedJob("metadata.resourceVersion"))?,
            retired: is_retired(meta, &status),
            confirmed: false,
            presence: Presence::Present,
            cancelled: false,
            creation_time: creation_time(meta),
            trace: trace(meta),
            template_hash: get(&meta.annotations, ANNOTATION_TEMPLATE_HASH).ok().map(String::into_boxed_str),
            submitter: submitter(meta).map(Box::new),
            status,
        })
    }

    /// Decodes a Job whose labels or annotations were changed. The request's id and sequence come
    /// from `last`, the last event of the subject. Returns `None` if `last` belongs to another Job
    /// or is an outcome.
    #[must_use]
    pub fn from_changed_object(object: &JobObject, last: StatusEvent, request_hash: String) -> Option<Self> {
        let meta = &object.metadata;
        if meta.uid.as_deref() != Some(last.uid.as_str()) || last.event == EventType::Outcome {
            return None;
        }
        Self::from_last_event(last, request_hash).observed_as(object)
    }

    /// The same Job in the state of `object`, whose labels or annotations may be changed. Returns `None`
    /// without a resourceVersion.
    #[must_use]
    pub fn observed_as(self, object: &JobObject) -> Option<Self> {
        let meta = &object.metadata;
        let status = status_of(object);
        Some(Self {
            resource_version: resource_version(meta)?,
            retired: is_retired(meta, &status),
            presence: Presence::Present,
            creation_time: creation_time(meta),
            trace: trace(meta).or(self.trace),
            status,
            ..self
        })
    }

    /// The state of a Job that the API server does not list: the last published one.
    #[must_use]
    pub fn from_last_event(last: StatusEvent, request_hash: String) -> Self {
        Self {
            template: last.template,
            name: last.name,
            namespace: last.namespace,
            uid: last.uid,
            request_id: last.request_id,
            request_seq: last.request_seq,
            request_hash,
            resource_version: last.resource_version.parse().unwrap_or(0),
            retired: false,
            confirmed: false,
            presence: Presence::MissingUnverified,
            cancelled: false,
            creation_time: None,
            trace: None,
            template_hash: None,
            submitter: last.submitter.map(Box::new),
            status: JobStatus::published(last.status, last.status_truncated),
        }
    }

    /// The same state with another presence.
    #[must_use]
    pub fn with_presence(self, presence: Presence) -> Self {
        Self { presence, ..self }
    }

    /// Whether the Job has a final condition: `Complete` or `Failed`.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.status.result().is_some()
    }

    /// The outcome according to the final condition; `None` if the Job has no final condition.
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome> {
        self.status.outcome()
    }

    /// The outcome of a Job that was deleted before it had a final condition.
    #[must_use]
    pub fn outcome_of_deletion(&self) -> Outcome {
        let (result, how) = if self.cancelled {
            (OutcomeResult::Cancelled, "cancelled")
        } else {
            (OutcomeResult::Deleted, "deleted")
        };
        Outcome {
            message: Some(format!("the Job was {how} before it had a final condition")),
            ..self.status.outcome_without_condition(result)
        }
    }

    /// Why the Job is suspended; `None` if it is not.
    #[must_use]
    pub fn suspension(&self) -> Option<Stall> {
        self.status.suspension().cloned()
    }
}

/// The outcome label of a Job, and whether its record binds it to the Job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutcomeLabel {
    /// The Job has no outcome label.
    None,
    /// The record is missing, invalid, or names another uid.
    Unbound,
    /// The record names the uid of this Job, and the sequence of its outcome in `JOB_STATUS`.
    Bound(u64),
}

impl OutcomeLabel {
    /// Reads the label from the metadata of a Job.
    #[must_use]
    pub fn of(meta: &ObjectMeta) -> Self {
        if !meta.labels.as_ref().is_some_and(|labels| labels.contains_key(LABEL_OUTCOME)) {
            return Self::None;
        }
        let record = meta.annotations.as_ref().and_then(|all| all.get(ANNOTATION_OUTCOME_RECORD));
        let record = record.and_then(|record| record.rsplit_once('/'));
        let bound = record.filter(|(uid, _)| meta.uid.as_deref() == Some(*uid));
        match bound.and_then(|(_, sequence)| sequence.parse().ok()) {
            Some(sequence) => Self::Bound(sequence),
            None => Self::Unbound,
        }
    }
}

/// The status of a Job as the API server delivers it. Without one, the status is empty.
#[must_use]
pub fn status_of(object: &JobObject) -> JobStatus {
    object.status.clone().unwrap_or_default().into()
}

fn is_retired(meta: &ObjectMeta, status: &JobStatus) -> bool {
    matches!(OutcomeLabel::of(meta), OutcomeLabel::Bound(_)) && status.result().is_some()
}

/// The value of [`ANNOTATION_OUTCOME_RECORD`] for the Job with this uid, whose outcome is stored at
/// `sequence`.
#[must_use]
pub fn outcome_record(uid: &str, sequence: u64) -> String {
    format!("{uid}/{sequence}")
}

fn resource_version(meta: &ObjectMeta) -> Option<u64> {
    meta.resource_version.as_deref()?.parse().ok()
}

fn creation_time(meta: &ObjectMeta) -> Option<SystemTime> {
    meta.creation_timestamp.as_ref().map(|time| time.0.into())
}

fn submitter(meta: &ObjectMeta) -> Option<Submitter> {
    Submitter::parse(meta.annotations.as_ref()?.get(ANNOTATION_SUBMITTER)?)
}

fn trace(meta: &ObjectMeta) -> Option<Trace> {
    let annotation = |key: &str| meta.annotations.as_ref()?.get(key).map(String::as_str);
    Trace::from_headers(annotation(ANNOTATION_TRACEPARENT), annotation(ANNOTATION_TRACESTATE))
}

#[cfg(test)]
mod tests;
