//! The plan of one sync: actions, executed in the order of the fields.

use k8s_openapi::{
    api::{batch::v1::JobStatus, core::v1::Pod},
    jiff::Timestamp,
};

use crate::controller::events::Note;

/// The actions for one Job; empty if the Job is in its desired state.
#[derive(Debug, Default, Clone, PartialEq)]
pub(in crate::controller) struct Plan {
    /// Pods to delete.
    pub(in crate::controller) delete: Vec<PodDeletion>,
    /// Pods to create.
    pub(in crate::controller) create: Vec<Pod>,
    /// The status to write, which already reflects `delete` and `create`; `None` if it is current.
    pub(in crate::controller) status: Option<JobStatus>,
    /// The names of counted pods whose finalizer is removed after the status is stored.
    pub(in crate::controller) release: Vec<String>,
    /// The Events to record after the status is stored.
    pub(in crate::controller) notes: Vec<Note>,
    /// When to sync again without a change.
    pub(in crate::controller) requeue_at: Option<Timestamp>,
}

/// A pod to delete.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::controller) struct PodDeletion {
    pub(in crate::controller) name: String,
    pub(in crate::controller) uid: String,
    /// Whether to remove the finalizer first, so that the pod is not counted.
    pub(in crate::controller) release: bool,
}

impl Plan {
    /// Whether the plan changes anything, which requires another sync.
    pub(in crate::controller) fn changes(&self) -> bool {
        !(self.delete.is_empty()
            && self.create.is_empty()
            && self.status.is_none()
            && self.release.is_empty())
    }
}
