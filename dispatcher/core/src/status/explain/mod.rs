//! Reads observations from pods and Kubernetes Events: why a Job failed, and why it does not run.

pub mod event;
pub mod pod;
