//! Tests the API with a real client, in-process and over HTTP.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail fast"
)]

mod access;
mod cluster;
mod deletes;
mod errors;
mod faults;
mod lists;
mod verbs;
mod watch_faults;
mod watches;
