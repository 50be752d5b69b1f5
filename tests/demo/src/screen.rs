//! What the user sees. On a terminal the Jobs are a board at the bottom, drawn in place, and all else scrolls above it;
//! elsewhere they are lines as well, one for each change.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::event::Event;
use crate::row::{Mood, Row};

/// Every line of the board is a drawing of its own: at the usual 20 a second the last lines would not get their turn.
const HZ: u8 = 200;

/// The screen, and the clock in its first column. Clones are handles of the same one.
#[derive(Clone)]
pub(crate) struct Screen {
    start: Instant,
    colour: bool,
    board: Arc<Mutex<Board>>,
}

/// The Jobs as they are shown.
enum Board {
    /// In place.
    Live { bars: MultiProgress, jobs: BTreeMap<String, ProgressBar> },
    /// As lines: what was shown last of each.
    Lines(BTreeMap<String, String>),
    /// Nothing more is shown of them.
    Ended,
}

impl Screen {
    pub(crate) fn new() -> Self {
        let is_terminal = std::io::stdout().is_terminal();
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let board = match is_terminal {
            true => {
                let bars = MultiProgress::with_draw_target(ProgressDrawTarget::stdout_with_hz(HZ));
                Board::Live { bars, jobs: BTreeMap::new() }
            }
            false => Board::Lines(BTreeMap::new()),
        };
        Self { start: Instant::now(), colour: wanted && is_terminal, board: Arc::new(Mutex::new(board)) }
    }

    pub(crate) fn plain(&self, text: &str) {
        // Nobody to read it is no reason to stop.
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

    /// A command as the user would type it.
    pub(crate) fn command(&self, command: &str) {
        self.plain(&format!("{} {} {command}", self.clock(Instant::now()), self.paint("1", "$")));
    }

    /// Something that happened beside the Jobs.
    pub(crate) fn note(&self, text: &str) {
        self.plain(&format!("{} {} {text}", self.clock(Instant::now()), self.paint("1;36", "──")));
    }

    /// A request that was refused.
    pub(crate) fn rejection(&self, event: &Event) {
        let reason = event.reason.as_deref().unwrap_or_default();
        let message = event.message.as_deref().unwrap_or_default();
        let text = self.paint("1;33", &format!("rejected    {message} ({reason})"));
        self.plain(&format!("{} {:<16} {text}", self.clock(Instant::now()), "(no Job)"));
    }

    /// Shows the Jobs as they are now.
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
                    if row.is_over() && !bar.is_finished() {
                        bar.finish();
                    }
                }
            }
            Board::Lines(shown) => {
                for row in rows {
                    let state = row.state();
                    if shown.get(&row.job) != Some(&state) {
                        lines.push(format!("{}{}", self.clock(now), self.row(row, now)));
                        shown.insert(row.job.clone(), state);
                    }
                }
            }
            Board::Ended => {}
        }
        lines.iter().for_each(|line| self.plain(line));
    }

    /// What the board shows stays as it is; what comes is below it.
    pub(crate) fn end_board(&self) {
        if let Board::Live { jobs, .. } = std::mem::replace(&mut *self.board(), Board::Ended) {
            jobs.values().filter(|bar| !bar.is_finished()).for_each(ProgressBar::abandon);
        }
    }

    /// A line of the summary, marked as good or missing.
    pub(crate) fn verdict(&self, good: bool, text: &str) {
        let mark = if good { self.paint("1;32", "✓") } else { self.paint("1;31", "✗") };
        self.plain(&format!("  {mark} {text}"));
    }

    fn row(&self, row: &Row, now: Instant) -> String {
        let colour = match row.mood() {
            Mood::Plain => "36",
            Mood::Good => "1;32",
            Mood::Bad => "1;31",
            Mood::Odd => "1;33",
        };
        let state = self.paint(colour, &row.state());
        let seconds = row.elapsed(now).as_secs_f64();
        format!(" {:<16} {state} {seconds:>5.1} s  {}", row.job, row.why()).trim_end().to_owned()
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

/// A line of the board: its message, cut where the terminal ends.
fn bar() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    match ProgressStyle::with_template("{spinner} {wide_msg}") {
        Ok(style) => bar.with_style(style.tick_chars("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ ")),
        Err(_) => bar,
    }
}
