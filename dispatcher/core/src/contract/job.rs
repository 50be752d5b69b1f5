//! What the dispatcher writes on a Job and reads back from it.
//!
//! [`JobState`] is a Job as the report half sees it: only what the events need, never the whole object.

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use kube_core::{Object, ObjectMeta, object::NotUsed};
use serde::Deserialize;
use serde_json::Value;

use crate::contract::{
    event::{EventType, Outcome, OutcomeResult, Stall, StatusEvent},
    names::{JobName, RequestId, TemplateName},
    trace::{ANNOTATION_TRACEPARENT, ANNOTATION_TRACESTATE, Trace},
};

/// Label with the template; the watch selects by it.
pub const LABEL_TEMPLATE: &str = "natsjobs.dev/template";
/// Label of Kubernetes' own with the template.
pub const LABEL_NAME: &str = "app.kubernetes.io/name";
/// Label of Kubernetes' own with the maker.
pub const LABEL_MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// The value of [`LABEL_MANAGED_BY`].
pub const MANAGED_BY: &str = "dispatcher";
/// Annotation with the identity of the request.
pub const ANNOTATION_REQUEST_ID: &str = "natsjobs.dev/request-id";
/// Annotation with the request's sequence in `JOBS`.
pub const ANNOTATION_REQUEST_SEQ: &str = "natsjobs.dev/request-seq";
/// Annotation with the hash of the request.
pub const ANNOTATION_REQUEST_HASH: &str = "natsjobs.dev/request-hash";
/// Label with the result of the stored outcome. Nothing more is published about such a Job.
pub const LABEL_OUTCOME: &str = "natsjobs.dev/outcome";

/// A `batch/v1` Job of which only metadata and status are decoded; the status stays verbatim.
pub type JobObject = Object<NotUsed, Value>;

/// Where a Job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// In the cluster.
    Present,
    /// The watch said that it is gone; that can also mean that it lost its label.
    DeletedUnverified,
    /// It is gone, and the watch told its last state.
    Deleted,
    /// It is in no list; its last state is the one that was said.
    MissingUnverified,
    /// It is gone, and nobody saw it go.
    Missing,
}

/// A Job made by the dispatcher, as it is now.
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
    /// The identity of the request that made it.
    pub request_id: RequestId,
    /// The sequence of that request.
    pub request_seq: u64,
    /// The hash of that request; empty where it is not known (read back from an event without it).
    pub request_hash: String,
    /// The resourceVersion: comparable as a number within a cluster (Kubernetes KEP-5504).
    pub resource_version: u64,
    /// Whether its outcome is stored.
    pub retired: bool,
    /// Where it is.
    pub presence: Presence,
    /// Whether it was to be cancelled; known once it is gone.
    pub cancelled: bool,
    /// When it was created; not known of one that is in no list.
    pub created: Option<SystemTime>,
    /// The trace that it belongs to, from the annotations.
    pub trace: Option<Trace>,
    /// The `JobStatus`, verbatim.
    pub status: Status,
}

/// A `JobStatus` as JSON text, shared by all copies of a state: a tree of values takes many times the memory, and of every
/// unfinished Job some states are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status(Arc<str>);

impl Status {
    /// The JSON object.
    pub fn value(&self) -> Value {
        serde_json::from_str(&self.0).unwrap_or_default()
    }

    /// The JSON text.
    pub fn text(&self) -> &str {
        &self.0
    }
}

impl From<Value> for Status {
    fn from(status: Value) -> Self {
        Self(if status.is_null() { "{}".into() } else { status.to_string().into() })
    }
}

/// Why an object is no Job of the dispatcher.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the Job has no valid {0}: it was not made by the dispatcher, or someone changed it")]
pub struct UnmanagedJob(&'static str);

impl JobState {
    /// Reads a Job.
    ///
    /// # Errors
    /// [`UnmanagedJob`] names the field that a Job of the dispatcher would have.
    pub fn read(object: &JobObject) -> Result<Self, UnmanagedJob> {
        Self::read_parts(&object.metadata, object.status.clone().unwrap_or(Value::Null))
    }

    /// Reads a Job from its metadata and status.
    ///
    /// # Errors
    /// As [`JobState::read`].
    pub fn read_parts(meta: &ObjectMeta, status: Value) -> Result<Self, UnmanagedJob> {
        let get = |map: &Option<BTreeMap<String, String>>, key: &'static str| {
            map.as_ref().and_then(|m| m.get(key)).cloned().ok_or(UnmanagedJob(key))
        };
        if get(&meta.labels, LABEL_MANAGED_BY)? != MANAGED_BY {
            return Err(UnmanagedJob(LABEL_MANAGED_BY));
        }
        // The template stands on two labels: one of them may have been taken off.
        let template = get(&meta.labels, LABEL_TEMPLATE)
            .or_else(|_| get(&meta.labels, LABEL_NAME))
            .map_err(|_| UnmanagedJob(LABEL_TEMPLATE))?;
        Ok(Self {
            template: TemplateName::try_from(template).map_err(|_| UnmanagedJob(LABEL_TEMPLATE))?,
            name: JobName::try_from(meta.name.clone().unwrap_or_default())
                .map_err(|_| UnmanagedJob("metadata.name"))?,
            namespace: meta.namespace.clone().unwrap_or_default(),
            uid: meta.uid.clone().ok_or(UnmanagedJob("metadata.uid"))?,
            request_id: RequestId::try_from(get(&meta.annotations, ANNOTATION_REQUEST_ID)?)
                .map_err(|_| UnmanagedJob(ANNOTATION_REQUEST_ID))?,
            request_seq: get(&meta.annotations, ANNOTATION_REQUEST_SEQ)?
                .parse()
                .map_err(|_| UnmanagedJob(ANNOTATION_REQUEST_SEQ))?,
            request_hash: get(&meta.annotations, ANNOTATION_REQUEST_HASH)?,
            resource_version: meta
                .resource_version
                .as_deref()
                .and_then(|v| v.parse().ok())
                .ok_or(UnmanagedJob("metadata.resourceVersion"))?,
            retired: get(&meta.labels, LABEL_OUTCOME).is_ok(),
            presence: Presence::Present,
            cancelled: false,
            created: created(meta),
            trace: trace(meta),
            status: status.into(),
        })
    }

    /// Reads a Job whose marks somebody changed, by the identity of what was last said of it; `None` where that is of
    /// another Job, or final.
    pub fn read_as(object: &JobObject, said: StatusEvent, request_hash: String) -> Option<Self> {
        let meta = &object.metadata;
        if meta.uid.as_deref() != Some(said.uid.as_str()) || said.event == EventType::Outcome {
            return None;
        }
        Some(Self {
            resource_version: meta.resource_version.as_deref()?.parse().ok()?,
            retired: meta.labels.as_ref().is_some_and(|labels| labels.contains_key(LABEL_OUTCOME)),
            presence: Presence::Present,
            created: created(meta),
            trace: trace(meta),
            status: object.status.clone().unwrap_or_default().into(),
            ..Self::missing(said, request_hash)
        })
    }

    /// Whether an object carries this request's identity, whatever else of its marks was changed.
    pub fn is_of(object: &JobObject, id: &RequestId) -> bool {
        let annotations = object.metadata.annotations.as_ref();
        annotations.and_then(|a| a.get(ANNOTATION_REQUEST_ID)).is_some_and(|found| found == id.as_ref())
    }

    /// The state that was last said, of a Job that is in no list any more.
    pub fn missing(said: StatusEvent, request_hash: String) -> Self {
        Self {
            template: said.template,
            name: said.name,
            namespace: said.namespace,
            uid: said.uid,
            request_id: said.request_id,
            request_seq: said.request_seq,
            request_hash,
            resource_version: said.resource_version.parse().unwrap_or(0),
            retired: false,
            presence: Presence::MissingUnverified,
            cancelled: false,
            created: None,
            trace: None,
            status: said.status.into(),
        }
    }

    /// The same state elsewhere.
    pub fn with_presence(self, presence: Presence) -> Self {
        Self { presence, ..self }
    }

    /// The outcome by the Job's conditions: `Complete` or `Failed` with status `True`; `None` while there is neither.
    ///
    /// Never by the counts of pods: with `backoffLimit: 3` there may be three failed pods or four. The interim
    /// conditions `SuccessCriteriaMet` and `FailureTarget` are not final (Kubernetes, "Jobs", "Job termination").
    pub fn outcome(&self) -> Option<Outcome> {
        let view = StatusView::of(&self.status);
        let (result, condition) =
            view.conditions.into_iter().filter(|c| c.status == "True").find_map(|c| {
                match c.type_.as_str() {
                    "Complete" => Some((OutcomeResult::Complete, c)),
                    "Failed" => Some((OutcomeResult::Failed, c)),
                    _ => None,
                }
            })?;
        Some(Outcome {
            result,
            reason: condition.reason.filter(|r| !r.is_empty()),
            message: condition.message.filter(|m| !m.is_empty()),
            succeeded: view.succeeded,
            failed: view.failed,
            start_time: view.start_time,
            finish_time: view.completion_time.or(condition.last_transition_time),
            attempts: Vec::new(),
            attempts_omitted: 0,
            stall: None,
        })
    }

    /// Why it is suspended, by its condition; `None` where it is not.
    pub fn suspended(&self) -> Option<Stall> {
        if !self.status.text().contains("\"Suspended\"") {
            return None;
        }
        let status = self.status.value();
        let conditions = status.get("conditions")?.as_array()?;
        let is = |condition: &Value, key: &str, value: &str| {
            condition.get(key).is_some_and(|found| found == value)
        };
        let condition = conditions.iter().find(|c| is(c, "type", "Suspended") && is(c, "status", "True"))?;
        let text = |key: &str, default: &str| {
            condition
                .get(key)
                .and_then(Value::as_str)
                .filter(|text| !text.is_empty())
                .unwrap_or(default)
                .to_owned()
        };
        Some(Stall { reason: text("reason", "JobSuspended"), message: text("message", "Job suspended") })
    }

    /// The outcome of a Job that vanished before it had a final condition.
    pub fn outcome_deleted(&self) -> Outcome {
        let view = StatusView::of(&self.status);
        let (result, done) = match self.cancelled {
            true => (OutcomeResult::Cancelled, "cancelled"),
            false => (OutcomeResult::Deleted, "deleted"),
        };
        Outcome {
            result,
            reason: None,
            message: Some(format!("the Job was {done} before it had a final condition")),
            succeeded: view.succeeded,
            failed: view.failed,
            start_time: view.start_time,
            finish_time: None,
            attempts: Vec::new(),
            attempts_omitted: 0,
            stall: None,
        }
    }
}

fn created(meta: &ObjectMeta) -> Option<SystemTime> {
    meta.creation_timestamp.as_ref().map(|time| time.0.into())
}

/// The trace that stands on a Job.
fn trace(meta: &ObjectMeta) -> Option<Trace> {
    let annotation = |key: &str| meta.annotations.as_ref()?.get(key).map(String::as_str);
    Trace::of(annotation(ANNOTATION_TRACEPARENT), annotation(ANNOTATION_TRACESTATE))
}

/// What an outcome needs of a `JobStatus`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct StatusView {
    conditions: Vec<Condition>,
    succeeded: i32,
    failed: i32,
    start_time: Option<String>,
    completion_time: Option<String>,
}

impl StatusView {
    fn of(status: &Status) -> Self {
        serde_json::from_str(status.text()).unwrap_or_default()
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Condition {
    #[serde(rename = "type")]
    type_: String,
    status: String,
    reason: Option<String>,
    message: Option<String>,
    last_transition_time: Option<String>,
}

#[cfg(test)]
mod tests;
