//! The report half: watches the Jobs and tells what became of each.

pub mod events;
pub mod jobs;
pub mod logs;
pub mod pods;
pub mod retire;
mod second_pass;
pub mod tombstones;
