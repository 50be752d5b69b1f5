//! The wire contract: names, subjects, headers, status events, rejections, and the metadata of Jobs.
//!
//! Other programs depend on everything here. After the first release it only grows.

/// A key with the dispatcher's prefix.
macro_rules! prefixed {
    ($key:literal) => {
        concat!("natsjobs.dev/", $key)
    };
}
pub(crate) use prefixed;

/// The prefix of all labels, annotations, stream metadata keys and API versions of the dispatcher.
pub const PREFIX: &str = prefixed!("");

pub mod dead_letter;
pub mod event;
pub mod headers;
pub(crate) mod hex;
pub mod job;
pub mod job_status;
pub mod names;
pub mod nats_names;
pub mod object;
pub mod rejection;
pub mod schemas;
pub mod settings;
pub mod submitter;
pub mod text;
pub mod trace;
pub mod uid;
