//! Why a Job failed, and why it does not run: pods and Kubernetes' Events → [`Sign`](crate::status::signs::Sign)s. Pure.

pub mod event;
pub mod pod;
