//! The fault suite: the dispatcher within this process on a local cluster that goes wrong in every way that it knows,
//! beside a real NATS, under load; and after each fault the promises are checked over all that was stored and seen.
//!
//! Nothing here takes long: the tests play the controller of the Jobs, and whoever judges is struck by no fault.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: it stops at once where something is not as given"
)]

mod calls;
mod mixed;
mod scenario;
mod service;
mod watches;
