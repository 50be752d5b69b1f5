//! Reads observations from pods, Kubernetes Events and the Workloads of Kueue: why a Job failed, and
//! why it does not run.

pub mod event;
mod owner;
pub mod pod;
pub mod workload;
