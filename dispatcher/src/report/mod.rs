//! The report half: watches the Jobs and tells what became of each.

pub mod events;
pub mod explain;
pub mod follow;
pub mod leader;
pub mod lease;
pub mod logs;
pub mod pods;
mod second_look;
pub mod settle;
pub mod watch;
pub mod witnessed;
