//! Terminal output. On a terminal the Jobs are a live board at the bottom, and other lines scroll
//! above it. Otherwise each change of a Job is a line.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::event::Event;
use crate::row::{Row, Severity};

/// Redraws per second. Each line of the board is drawn separately, so the default of 20 would skip
/// lines.
const REFRESH_RATE: u8 = 200;

/// The output, with the elapsed time in the first column. Clones share their state.
#[derive(Clone)]
pub(crate) struct Screen {
    start: Instant,
    colour: bool,
    board: Arc<Mutex<Board>>,
}

/// How the Jobs are displayed.
enum Board {
    /// Redrawn in place.
    Live { bars: MultiProgress, jobs: BTreeMap<String, ProgressBar> },
    /// As lines; the map has the last line of each Job.
    Lines(BTreeMap<String, String>),
    /// No longer updated.
    Ended,
}

impl Screen {
    pub(crate) fn new() -> Self {
        let is_terminal = std::io::stdout().is_terminal();
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let board = match is_terminal {
            true => {
                let bars = MultiProgress::with_draw_target(ProgressDrawTarget::stdout_with_hz(REFRESH_RATE));
                Board::Live { bars, jobs: BTreeMap::new() }
            }
            false => Board::Lines(BTreeMap::new()),
        };
        Self { start: Instant::now(), colour: wanted && is_terminal, board: Arc::new(Mutex::new(board)) }
    }

    pub(crate) fn plain(&self, text: &str) {
        // A closed output must not stop the demo.
        let _ = match &*self.board() {
            Board::Live { bars, .. } => bars.println(text),
            Board::Lines(_) | Board::Ended => {
                let mut out = std::io::stdout().lock();
                writeln!(out, "{text}").and_then(|()| out.flush())
            }
        };
    }

    pub(crate) fn title(&self, text: &str) {
        self.plain(&format!("\n{}", self.paint("1", text)));
    }

    /// A shell command that has the same effect.
    pub(crate) fn command(&self, command: &str) {
        self.plain(&format!("{} {} {command}", self.clock(Instant::now()), self.paint("1", "$")));
    }

    /// An event that is not of a single Job.
    pub(crate) fn note(&self, text: &str) {
        self.plain(&format!("{} {} {text}", self.clock(Instant::now()), self.paint("1;36", "──")));
    }

    /// A rejected request.
    pub(crate) fn rejection(&self, event: &Event) {
        let reason = event.reason.as_deref().unwrap_or_default();
        let message = event.message.as_deref().unwrap_or_default();
        let text = self.paint("1;33", &format!("rejected    {message} ({reason})"));
        self.plain(&format!("{} {:<16} {text}", self.clock(Instant::now()), "(no Job)"));
    }

    /// Displays the current state of the Jobs.
    pub(crate) fn show(&self, rows: &[Row], now: Instant) {
        let mut lines = vec![];
        match &mut *self.board() {
            Board::Live { bars, jobs } => {
                for row in rows {
                    let bar = jobs.entry(row.job.clone()).or_insert_with(|| bars.add(bar()));
                    if !bar.is_finished() {
                        bar.set_message(self.row(row, now));
                        bar.tick();
                    }
                    if row.is_finished() && !bar.is_finished() {
                        bar.finish();
                    }
                }
            }
            Board::Lines(last) => {
                for row in rows {
                    let state = row.state();
                    if last.get(&row.job) != Some(&state) {
                        lines.push(format!("{}{}", self.clock(now), self.row(row, now)));
                        last.insert(row.job.clone(), state);
                    }
                }
            }
            Board::Ended => {}
        }
        lines.iter().for_each(|line| self.plain(line));
    }

    /// Freezes the board. Later lines are printed below it.
    pub(crate) fn freeze_board(&self) {
        if let Board::Live { jobs, .. } = std::mem::replace(&mut *self.board(), Board::Ended) {
            jobs.values().filter(|bar| !bar.is_finished()).for_each(ProgressBar::abandon);
        }
    }

    /// A line of the summary with a check mark or a cross.
    pub(crate) fn check(&self, passed: bool, text: &str) {
        let mark = if passed { self.paint("1;32", "✓") } else { self.paint("1;31", "✗") };
        self.plain(&format!("  {mark} {text}"));
    }

    fn row(&self, row: &Row, now: Instant) -> String {
        let colour = match row.severity() {
            Severity::Running => "36",
            Severity::Complete => "1;32",
            Severity::Failed => "1;31",
            Severity::Other => "1;33",
        };
        let state = self.paint(colour, &row.state());
        let seconds = row.elapsed(now).as_secs_f64();
        format!(" {:<16} {state} {seconds:>5.1} s  {}", row.job, row.explanation()).trim_end().to_owned()
    }

    fn clock(&self, now: Instant) -> String {
        let seconds = now.saturating_duration_since(self.start).as_secs_f64();
        self.paint("2", &format!("{seconds:>5.1}s"))
    }

    fn paint(&self, code: &str, text: &str) -> String {
        match self.colour && !text.is_empty() {
            true => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
            false => text.to_owned(),
        }
    }

    fn board(&self) -> std::sync::MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A line of the board, truncated to the width of the terminal.
fn bar() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    match ProgressStyle::with_template("{spinner} {wide_msg}") {
        Ok(style) => bar.with_style(style.tick_chars("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ ")),
        Err(_) => bar,
    }
}
