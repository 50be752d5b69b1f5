//! The wire contract: names, subjects, headers, status events, rejections, and the metadata of Jobs.
//!
//! Other programs depend on everything here. After the first release it only grows.

pub mod event;
pub mod headers;
pub mod job;
pub mod names;
pub mod rejection;
pub mod schemas;
pub mod text;
pub mod trace;
