//! The dispatcher: turns NATS messages into Kubernetes Jobs, and publishes their status events.
//!
//! ```text
//! jobs.<template>.create ─▶ intake ─▶ Kubernetes ─▶ watch ─▶ status ─▶ jobs.<template>.status.<name>
//! ```
//! [`app::run`] runs the service. The rules are in the crate `dispatcher-core`. See
//! `docs/architecture.md`.

mod admin;
pub mod app;
pub mod cancellation;
pub mod check;
pub mod cli;
mod clock;
pub mod concurrency;
#[cfg(feature = "dev")]
pub mod dev;
pub mod intake;
pub mod kube;
pub mod leader;
mod micro;
pub mod nats;
mod retry;
pub mod status;
mod supervisor;
pub mod telemetry;
pub mod templates;
pub mod watch;
