//! Requests become Jobs or dead letters.

use std::time::Duration;

pub mod consumer;
pub mod create;
pub mod dead_letters;
pub mod handler;
pub mod poison;

/// The longest time one request is handled. With the ack it stays below `ack_wait`
/// ([`crate::nats::definitions::ACK_WAIT`]).
pub const HANDLE_DEADLINE: Duration = Duration::from_secs(35);
