//! Why a Job failed, and why it does not run: pods and Kubernetes' Events → [`PodObservation`](crate::status::pod_tracker::PodObservation)s. Pure.

pub mod event;
pub mod pod;
