//! Tests the controller, the kubelet and real processes through the API.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail fast"
)]

mod ends;
mod faults;
mod logs;
mod processes;
mod testbed;
mod wait;
