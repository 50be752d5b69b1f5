//! The console: a web page on the admin port, with a live board of the Jobs.
//!
//! ```text
//! JOB_STATUS ─▶ feed ─▶ live (board) ─▶ viewer (server-sent events) ─▶ page
//! JOB_STATUS, JOB_REJECTED ─▶ read ─▶ page        page ─▶ write ─▶ micro (submit, cancel)
//! ```
//! It reads what every subscriber can read, and publishes no status event.

mod answer;
mod feed;
mod live;
mod page;
mod read;
mod router;
mod state;
mod templates;
mod viewer;
mod write;

pub(crate) use self::state::{Backend, Console};
