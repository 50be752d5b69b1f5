//! NATS: the connection, the definitions of streams and consumers, and their provision at start.

pub mod connect;
pub mod definitions;
pub mod origin;
pub mod provision;
pub mod requests;
pub mod scan;
pub mod watchdog;
