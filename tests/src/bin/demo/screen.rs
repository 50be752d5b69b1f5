//! What the user sees: titles, commands, notes and one aligned line for each event. Colour on a terminal only.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use crate::event::{Event, Mood, Status};

/// The width that lines keep to.
const WIDTH: usize = 120;
/// Where the last column of an event begins.
const INDENT: usize = 48;

/// The screen, and the clock in its first column.
#[derive(Clone)]
pub(crate) struct Screen {
    start: Instant,
    colour: bool,
}

impl Screen {
    pub(crate) fn new() -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { start: Instant::now(), colour: wanted && std::io::stdout().is_terminal() }
    }

    /// Time in the first column counts from here.
    pub(crate) fn restart_clock(&mut self) {
        self.start = Instant::now();
    }

    pub(crate) fn plain(&self, text: &str) {
        let mut out = std::io::stdout().lock();
        // Nobody to read it is no reason to stop.
        let _ = writeln!(out, "{text}");
        let _ = out.flush();
    }

    pub(crate) fn title(&self, text: &str) {
        self.plain(&format!("\n{}", self.paint("1", text)));
    }

    /// Says what is being done; [`Screen::done`] ends the line.
    pub(crate) fn doing(&self, text: &str) {
        let mut out = std::io::stdout().lock();
        let _ = write!(out, "  {text:.<78} ");
        let _ = out.flush();
    }

    pub(crate) fn done(&self, took: Duration) {
        self.plain(&format!("{:>5.1} s", took.as_secs_f64()));
    }

    /// A command as the user would type it, with its answer.
    pub(crate) fn command(&self, command: &str, answer: &str) {
        self.plain(&format!("  {} {command}", self.paint("1", "$")));
        if !answer.is_empty() {
            self.plain(&format!("    {}", self.paint("2", answer)));
        }
    }

    /// Something that happened beside the events.
    pub(crate) fn note(&self, text: &str) {
        self.plain(&format!("{} {} {text}", self.clock(), self.paint("1;36", "──")));
    }

    /// Something that is still going on.
    pub(crate) fn waiting(&self, text: &str) {
        self.plain(&format!("{} {}", self.clock(), self.paint("2", &format!("·· {text}"))));
    }

    pub(crate) fn heading(&self) {
        let line =
            format!("{:>6} {:<15} {:<8} {:>3} {:>3} {:>4}  what", "time", "Job", "type", "run", "ok", "fail");
        self.plain(&self.paint("4", &line));
    }

    /// One line, and more only where the text is wider than the screen. `before` is the Job's status as last heard.
    pub(crate) fn event(&self, event: &Event, before: Option<&Status>) {
        let colour = match event.mood() {
            Mood::New => "36",
            Mood::Plain => "0",
            Mood::Good => "1;32",
            Mood::Bad => "1;31",
            Mood::Odd => "1;33",
        };
        let status = &event.status;
        let counts = match event.is_rejection() {
            true => " ".repeat(12),
            false => format!("{:>3} {:>3} {:>4}", status.active, status.succeeded, status.failed),
        };
        let kind = self.paint(colour, &format!("{:<8}", event.event));
        let mut what = wrapped(&event.what(before), WIDTH - INDENT).into_iter();
        let first = self.paint(colour, &what.next().unwrap_or_default());
        self.plain(&format!("{} {:<15} {kind} {counts}  {first}", self.clock(), event.job()));
        for more in what {
            self.plain(&format!("{:INDENT$}{}", "", self.paint(colour, &more)));
        }
    }

    /// A line of the summary, marked as good or missing.
    pub(crate) fn verdict(&self, good: bool, text: &str) {
        let mark = if good { self.paint("1;32", "✓") } else { self.paint("1;31", "✗") };
        self.plain(&format!("  {mark} {text}"));
    }

    fn clock(&self) -> String {
        self.paint("2", &format!("{:>5.1}s", self.start.elapsed().as_secs_f64()))
    }

    fn paint(&self, code: &str, text: &str) -> String {
        match self.colour && !text.is_empty() {
            true => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
            false => text.to_owned(),
        }
    }
}

/// The text in lines of at most `width` characters, broken between words.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.is_empty() => word.clone_into(line),
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_breaks_between_words_and_only_where_it_must() {
        assert_eq!(wrapped("", 5), [""]);
        assert_eq!(wrapped("ab cd", 5), ["ab cd"]);
        assert_eq!(wrapped("ab cde", 5), ["ab", "cde"]);
        assert_eq!(wrapped("abcdefg h", 5), ["abcdefg", "h"]);
    }

    #[test]
    fn the_outcome_of_the_failing_job_fits_in_one_line() {
        let what = "Failed BackoffLimitExceeded: Job has reached the specified backoff limit";
        assert_eq!(wrapped(what, WIDTH - INDENT).len(), 1);
    }
}
