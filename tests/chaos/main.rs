//! The chaos suite: injects faults into a dispatcher process, NATS and Kubernetes under load.
//!
//! Each test is named after its fault, runs with a random seed (`make chaos`) and asserts that the
//! guarantees hold. With `TEST_CLUSTER=local` the local cluster replaces Kubernetes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code panics if an assumption is wrong"
)]

mod admission;
mod api_faults;
mod clock;
mod cluster;
mod control_plane;
mod crashes;
mod leadership;
mod logins;
mod manual_changes;
mod nats;
mod partitions;
mod process;
mod redelivery;
mod replicas;
mod scale;
mod scenario;
mod soak;
mod templates;
mod upgrade;
