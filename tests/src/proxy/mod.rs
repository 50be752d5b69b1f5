//! Proxies that go wrong, between the dispatcher and its two systems: each passes on what it understands, and can be told to
//! refuse, to stall, to be slow, or to stop at exactly one call or message.
//!
//! ```text
//! dispatcher ──▶ ApiProxy  ──▶ the API server (real, or the local cluster)
//!            ──▶ NatsProxy ──▶ NATS
//! ```

pub mod api;
mod breakpoint;
pub mod nats;
mod protocol;

pub use api::ApiProxy;
pub use breakpoint::Breakpoint;
pub use nats::NatsProxy;
pub use protocol::Publish;
