//! What to publish about a Job: from the last published event and what the watches observe.
//!
//! `subject_queue` orders the observations of one Job name and `reconcile` picks the next action.
//! `pod_tracker` and `stalls` turn pods into attempts and stalls; `explain` reads pods and Events.

pub mod event_body;
pub mod explain;
mod fit;
#[cfg(test)]
mod fuzz;
pub mod pod_tracker;
pub mod reconcile;
pub mod stalls;
pub mod subject_queue;
pub mod unmatched;

use crate::contract::names::{JobName, TemplateName};
use reconcile::LastEvent;

/// The template and the name of a Job: one status subject.
pub type SubjectKey = (TemplateName, JobName);

/// What is known of the last message of a status subject.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SubjectState {
    /// Its sequence in the stream; 0 if the subject has no message.
    pub sequence: u64,
    /// The event it carries; `None` if the subject has no message.
    pub last: Option<LastEvent>,
}
