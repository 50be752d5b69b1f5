//! NATS: the connection, the definitions of streams and consumers, and one accessor per stream.

pub(crate) mod browse;
pub(crate) mod cancellation_bucket;
pub(crate) mod connect;
pub(crate) mod connection;
mod credentials;
pub(crate) mod dead_letters_stream;
pub mod definitions;
pub(crate) mod headers;
pub(crate) mod jobs_stream;
pub mod nack;
pub(crate) mod provision;
pub(crate) mod receiver_thread;
pub mod roles;
pub mod scan;
pub(crate) mod settings;
pub(crate) mod status_stream;
pub(crate) mod subscription;
pub(crate) mod watchdog;
