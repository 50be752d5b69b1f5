//! Sample templates and Jobs for the tests of every crate.

mod bad_requests;
mod violations;

use serde_json::{Value, json};

use crate::{
    contract::job::{
        ANNOTATION_REQUEST_HASH, ANNOTATION_REQUEST_ID, ANNOTATION_REQUEST_SEQ, JobObject, JobState,
        LABEL_MANAGED_BY, LABEL_NAME, LABEL_TEMPLATE, MANAGED_BY,
    },
    template::Template,
};

/// The text of the shipped template `simple`.
pub const SIMPLE: &str = include_str!("../../../../deploy/templates/simple.yaml");

pub use bad_requests::{BadRequest, bad_requests};
pub use violations::{Violation, changed, job_of, shipped_limits, violations};

/// The shipped template `simple`.
///
/// # Panics
/// If the shipped template is not valid.
#[allow(clippy::unwrap_used, reason = "test code")]
#[must_use]
pub fn simple() -> Template {
    Template::parse(SIMPLE).unwrap()
}

/// A Job `simple-job-1` that the dispatcher created, with this `JobStatus`.
///
/// # Panics
/// Never: the metadata is valid.
#[allow(clippy::unwrap_used, reason = "test code")]
#[must_use]
pub fn a_job(uid: &str, resource_version: u64, status: Value) -> JobState {
    let object: JobObject = serde_json::from_value(json!({
        "metadata": {
            "name": "simple-job-1", "namespace": "jobs", "uid": uid,
            "resourceVersion": resource_version.to_string(),
            "labels": {LABEL_MANAGED_BY: MANAGED_BY, LABEL_NAME: "simple", LABEL_TEMPLATE: "simple"},
            "annotations": {
                ANNOTATION_REQUEST_ID: "id-1", ANNOTATION_REQUEST_SEQ: "7", ANNOTATION_REQUEST_HASH: "h",
            },
        },
        "spec": {"template": {}},
        "status": status,
    }))
    .unwrap();
    JobState::from_object(&object).unwrap()
}
