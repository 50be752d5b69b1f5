//! What the rules want done: values that the loop carries out in the order of their fields.

use k8s_openapi::{
    api::{batch::v1::JobStatus, core::v1::Pod},
    jiff::Timestamp,
};

use super::events::Note;

/// What is to be done for one Job. Empty where everything is as it should be.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct Plan {
    /// Pods to delete.
    pub(super) delete: Vec<PodDeletion>,
    /// Pods to create.
    pub(super) create: Vec<Pod>,
    /// The status to write, counting the pods above as gone and there; `None` where it stands already.
    pub(super) status: Option<JobStatus>,
    /// Names of pods whose end is in that status, to be let go of once it is stored.
    pub(super) release: Vec<String>,
    /// What to tell of the Job once the status is stored.
    pub(super) notes: Vec<Note>,
    /// When to look again although nothing changed.
    pub(super) requeue_at: Option<Timestamp>,
}

/// A pod to delete.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct PodDeletion {
    pub(super) name: String,
    pub(super) uid: String,
    /// Whether it is let go of first: its end is not to be counted.
    pub(super) release: bool,
}

impl Plan {
    /// Whether carrying it out changes something, so that the rules have to be asked again.
    pub(super) fn changes(&self) -> bool {
        !(self.delete.is_empty()
            && self.create.is_empty()
            && self.status.is_none()
            && self.release.is_empty())
    }
}
