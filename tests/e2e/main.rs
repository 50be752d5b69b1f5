//! The end-to-end suite: one program, so that one cluster serves all its tests.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: it stops at once where something is not as given"
)]

mod answers;
mod asking;
mod audit;
#[path = "../corpus/bad_requests.rs"]
mod bad_requests;
mod cancels;
mod cluster;
mod dev;
mod explanations;
mod faults;
mod idempotency;
mod illegible;
mod in_cluster;
mod limits;
mod metrics;
mod nack;
mod observability;
mod otlp;
mod outages;
mod outcomes;
mod picture;
mod proxies;
mod rejections;
mod rig;
mod security;
mod service;
mod settings;
mod templates;
mod traces;
mod waits;
mod watchdogs;
