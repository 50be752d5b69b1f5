//! The dispatcher: NATS messages become Kubernetes Jobs, and NATS hears what became of each.
//!
//! ```text
//! jobs.<kind>.create ─▶ intake ─▶ Kubernetes ─▶ report ─▶ status ─▶ jobs.<kind>.status.<name>
//! ```
//!
//! [`run::run`] is the service; `contract` is what other programs see. See `docs/architecture.md`.

pub mod active;
pub mod admin;
pub mod cancels;
pub mod check;
pub mod config;
pub mod contract;
#[cfg(feature = "dev")]
pub mod dev;
#[cfg(test)]
mod fuzz;
pub mod health;
pub mod intake;
pub mod kubernetes;
pub mod metrics;
pub mod nats;
pub mod report;
pub mod run;
pub mod service;
pub mod spans;
pub mod start;
pub mod status;
pub mod templates;
