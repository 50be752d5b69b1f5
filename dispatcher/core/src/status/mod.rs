//! Decides which status events to publish, from the last published event and the observations.
//!
//! `subject_queue` orders the observations of one Job name, and `reconcile` returns the next
//! action. `pod_tracker` and `stalls` derive attempts and stalls from observations of pods.
//! `explain` reads these observations from pods and Kubernetes Events.

mod compact_job;
pub mod event_body;
pub mod event_size;
pub mod explain;
#[cfg(test)]
mod fuzz;
pub mod log_tail;
pub mod outcome_label;
pub mod pending_pods;
pub mod pod_observation;
pub mod pod_tracker;
pub mod reconcile;
mod small_map;
mod stalls;
mod subject;
pub mod subject_queue;
pub mod unmatched;

pub use subject::{LastEvent, SubjectKey, SubjectState};
