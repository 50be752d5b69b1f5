//! Proxies between the dispatcher and its two systems. They refuse, stall or slow down connections,
//! or hold a single call or message.
//!
//! ```text
//! dispatcher ──▶ ApiProxy  ──▶ the API server (real, or the local cluster)
//!            ──▶ NatsProxy ──▶ NATS
//! ```

pub mod api;
mod breakpoint;
mod messages;
pub mod nats;
mod protocol;
mod traffic;

pub use api::ApiProxy;
pub use breakpoint::Breakpoint;
pub use messages::Messages;
pub use nats::NatsProxy;
pub use protocol::Publish;
pub use traffic::Traffic;
