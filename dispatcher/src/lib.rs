//! The dispatcher: NATS messages become Kubernetes Jobs, and each Job's status events go to NATS.
//!
//! ```text
//! jobs.<template>.create ─▶ intake ─▶ Kubernetes ─▶ watch ─▶ status ─▶ jobs.<template>.status.<name>
//! ```
//!
//! [`app::run`] is the service. The rules are in `dispatcher-core`. See `docs/architecture.md`.

pub mod admin;
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
mod leader;
mod leadership;
pub mod micro;
pub mod nats;
mod retry;
pub mod status;
pub mod telemetry;
pub mod templates;
pub mod watch;
