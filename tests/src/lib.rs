//! The testbed of the end-to-end tests: a real NATS, a real Kubernetes and the real dispatcher, for tests that see them from
//! outside only.
//!
//! Whatever runs is a child of the helper program `testbed`, which ends it when the pipe from the test closes; so nothing
//! outlives a test process, not even one that was killed.
//!
//! ```text
//! test process ── pipe ──▶ testbed kubernetes ──▶ etcd, API server, ..., containerd, kubelet ──▶ pods
//!              ── pipe ──▶ testbed docker     ──▶ dockerd
//!              ── pipe ──▶ testbed nats       ──▶ a container in that dockerd
//!              ── pipe ──▶ testbed run        ──▶ the dispatcher, Prometheus, NACK
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: it stops at once where something is not as given"
)]

pub mod chaos;
pub mod checker;
pub mod dispatcher;
pub mod docker;
pub mod helper;
pub mod job_controller;
pub mod kubernetes;
#[cfg(test)]
mod links;
pub mod load_test;
pub mod nack;
pub mod nats;
pub mod otlp;
pub mod paths;
pub mod ports;
pub mod prometheus;
pub mod proxy;
pub mod rbac;
pub mod skip;
pub mod test_env;
pub mod wait;

pub use dispatcher::Dispatcher;
pub use kubernetes::{Kubernetes, Namespace, Options};
pub use nack::Nack;
pub use nats::Nats;
pub use prometheus::Prometheus;
pub use test_env::TestEnv;
pub use wait::until;
