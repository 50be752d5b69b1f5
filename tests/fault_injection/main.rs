//! Injects faults into a local cluster, with the dispatcher in this process and a real NATS, under
//! load.
//!
//! Each test is named after its fault and asserts that the guarantees hold. Tests are fast because
//! they play the Job controller; the recorder's client is exempt from faults.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code panics if an assumption is wrong"
)]

mod admission;
mod calls;
mod labels;
mod mixed;
mod scenario;
mod service;
mod watches;
