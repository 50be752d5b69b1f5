//! When a finished Job is to go.

use k8s_openapi::{
    api::batch::v1::Job,
    jiff::{SignedDuration, Timestamp},
};

use super::conditions;

/// The time from which the Job is to be deleted; `None` while it is not finished, has no TTL, or is going already.
pub(super) fn expires_at(job: &Job) -> Option<Timestamp> {
    if job.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let ttl = job.spec.as_ref()?.ttl_seconds_after_finished?;
    conditions::finished_at(job)?.checked_add(SignedDuration::from_secs(ttl.into())).ok()
}
