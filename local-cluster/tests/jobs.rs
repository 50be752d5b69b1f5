//! Jobs as they run: the controller, the kubelet and real processes, met through the API alone.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: it stops at once where something is not as given"
)]

#[path = "jobs/ends.rs"]
mod ends;
#[path = "jobs/faults.rs"]
mod faults;
#[path = "jobs/logs.rs"]
mod logs;
#[path = "jobs/processes.rs"]
mod processes;
#[path = "jobs/testbed.rs"]
mod testbed;
#[path = "jobs/wait.rs"]
mod wait;
