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
mod backup;
mod browser;
mod cancellation;
mod chart;
mod clients;
mod cluster;
mod concurrency_limit;
mod console;
mod copied_jobs;
mod costs;
mod dashboard_svg;
mod dead_letters;
mod dev;
mod doctor;
mod faults;
mod idempotency;
mod in_cluster;
mod jetstream_domain;
mod job_templates;
mod kueue;
mod large_status;
mod metrics;
mod nack;
mod observability;
mod otlp;
mod outages;
mod outcomes;
mod pods;
mod poison;
mod proxies;
mod rejections;
mod release;
mod security;
mod service;
mod service_bounds;
mod service_client;
mod settings;
mod single_jobs;
mod start;
mod stream_settings;
mod templates;
mod testbed;
mod traces;
mod waits;
mod watchdogs;
