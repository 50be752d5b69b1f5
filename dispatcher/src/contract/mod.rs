//! The wire contract: names, subjects, headers, the events on the wire, and what stands on a Job.
//!
//! Everything here is pure and public to other people's programs; it changes only by adding.

pub mod event;
pub mod headers;
pub mod job;
pub mod names;
pub mod rejection;
pub mod schemas;
pub mod template;
pub mod text;
pub mod trace;
