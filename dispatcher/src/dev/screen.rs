//! What is said: whole lines, without colours where stdout is no terminal.

use std::io::Write;

use time::{OffsetDateTime, macros::format_description};

use crate::dev::lines;

/// Says this text.
pub(super) fn say(text: &str) {
    let mut out = anstream::stdout().lock();
    // Nobody to read it is no reason to stop.
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// Says what this program does itself, with the time in UTC.
pub(super) fn say_now(text: &str) {
    let time = OffsetDateTime::now_utc().format(format_description!("[hour]:[minute]:[second]"));
    say(&lines::own(&time.unwrap_or_default(), text));
}
