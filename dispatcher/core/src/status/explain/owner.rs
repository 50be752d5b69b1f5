//! The Job that controls an object.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube_core::ObjectMeta;

/// The Job that controls the object.
pub(super) fn owner_job(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.as_ref()?.iter().find(|owner| owner.controller == Some(true) && owner.kind == "Job")
}
