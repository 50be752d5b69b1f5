//! The API as a real client meets it, in this process and over HTTP.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: it stops at once where something is not as given"
)]

#[path = "api/cluster.rs"]
mod cluster;
#[path = "api/deletes.rs"]
mod deletes;
#[path = "api/errors.rs"]
mod errors;
#[path = "api/faults.rs"]
mod faults;
#[path = "api/lists.rs"]
mod lists;
#[path = "api/verbs.rs"]
mod verbs;
#[path = "api/watch_faults.rs"]
mod watch_faults;
#[path = "api/watches.rs"]
mod watches;
