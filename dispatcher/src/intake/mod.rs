//! The intake half.
pub mod request;
