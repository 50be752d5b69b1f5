//! NATS: the connection and as whom, the definitions of streams and consumers, and their provision at start.

pub mod connect;
pub mod credentials;
pub mod definitions;
pub mod headers;
pub mod incarnation;
pub mod nack;
pub mod provision;
pub mod requests;
pub mod scan;
pub mod watchdog;
