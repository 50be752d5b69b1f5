//! The fault campaign on the real parts: the dispatcher as a process of its own, beside a real NATS and a real Kubernetes
//! (or, with `TEST_CLUSTER=local`, the local cluster), under load. Each fault has a seed, and can be played again and
//! again (`make faults`); after each run the promises are checked over all that was stored and seen.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: it stops at once where something is not as given"
)]

mod admission;
mod api_faults;
mod clock;
mod cluster;
mod control_plane;
mod crashes;
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
