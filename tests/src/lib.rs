//! The testbed: runs NATS, Kubernetes and the dispatcher for tests that see only their interfaces.
//!
//! Every process is a child of the program `testbed`, which ends it when the pipe from the test
//! closes. So no process outlives a test process, even one that is killed.
//!
//! ```text
//! test process ── pipe ──▶ testbed kubernetes ──▶ etcd, API server, ..., containerd, kubelet ──▶ pods
//!              ── pipe ──▶ testbed docker     ──▶ dockerd
//!              ── pipe ──▶ testbed nats       ──▶ a container in that dockerd
//!              ── pipe ──▶ testbed run        ──▶ the dispatcher, Prometheus, NACK, Kueue
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::missing_errors_doc,
    reason = "test code panics if an assumption is wrong"
)]

pub mod attacks;
pub mod bare;
pub mod browser;
pub mod chaos;
pub mod checker;
pub mod dispatcher;
pub mod docker;
pub mod doctor;
pub mod helper;
pub mod idle_group;
pub mod job_controller;
pub mod kubernetes;
pub mod kueue;
#[cfg(test)]
mod links;
pub mod load_test;
pub mod manifests;
pub mod nack;
pub mod nats;
pub mod otlp;
pub mod paths;
pub mod ports;
pub mod process;
pub mod prometheus;
pub mod proxy;
pub mod rbac;
pub mod skip;
pub mod templates;
pub mod test_env;
pub mod wait;

pub use dispatcher::Dispatcher;
pub use kubernetes::{Kubernetes, Namespace, Options};
pub use kueue::Kueue;
pub use nack::Nack;
pub use nats::Nats;
pub use prometheus::Prometheus;
pub use test_env::TestEnv;
pub use wait::until;
