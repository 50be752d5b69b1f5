//! The end-to-end suite. One test program, so that all tests share one cluster.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a panic is how a test fails"
)]

mod answers;
mod attempts;
mod audit;
mod cancellation;
mod clients;
mod cluster;
mod concurrency_limit;
mod dashboard_svg;
mod dev;
mod faults;
mod idempotency;
mod in_cluster;
mod jetstream_domain;
mod metrics;
mod nack;
mod observability;
mod otlp;
mod outages;
mod outcomes;
mod poison;
mod proxies;
mod rejections;
mod security;
mod service;
mod service_client;
mod settings;
mod templates;
mod testbed;
mod traces;
mod waits;
mod watchdogs;
