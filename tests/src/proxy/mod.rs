//! Proxies between the dispatcher and its two systems. They refuse, stall or slow down connections,
//! hold a single call or message,
//! and count what passes.
//!
//! ```text
//! dispatcher ──▶ ApiProxy  ──▶ the API server (real, or the local cluster)
//!            ──▶ NatsProxy ──▶ NATS
//! ```

pub mod api;
mod breakpoint;
pub mod nats;
mod protocol;
mod traffic;

pub use api::ApiProxy;
pub use breakpoint::Breakpoint;
pub use nats::NatsProxy;
pub use protocol::Publish;
pub use traffic::{Count, Traffic};
