//! The board and its viewers: applies messages, and sends the changes to all viewers.
//!
//! A frame is encoded once for all viewers. A viewer that reads too slowly misses frames, and then
//! reads the board again. Nothing here waits for a viewer.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use dispatcher_core::console::{Board, Delta, MAX_ROWS, Row};
use serde::Serialize;
use serde_json::json;
use tokio::sync::broadcast;

/// How many rows are in one frame.
const FRAME_ROWS: usize = 200;
/// How many frames a viewer may be behind.
const BUFFER: usize = 64;

/// The board and its viewers.
pub(super) struct Live {
    state: Mutex<State>,
    frames: broadcast::Sender<Bytes>,
}

struct State {
    board: Board,
    /// When the stream was created, in nanoseconds since 1970: another one has other sequences.
    created: Option<i128>,
    /// Why the board is not current.
    problem: Option<String>,
    /// The last frame about the templates.
    templates: Bytes,
}

/// Rows and the ids of removed rows, as the page reads them.
#[derive(Serialize)]
struct Changes<'a> {
    rows: &'a [Row],
    removed: &'a [u64],
}

impl Default for Live {
    fn default() -> Self {
        let state = State {
            board: Board::new(MAX_ROWS),
            created: None,
            problem: Some("the dispatcher is starting".to_owned()),
            templates: Bytes::new(),
        };
        Self { state: Mutex::new(state), frames: broadcast::Sender::new(BUFFER) }
    }
}

impl Live {
    /// The board reads this stream from now on. Returns the sequence of its last message.
    pub(super) fn begin(&self, created: i128, stream_last: u64) -> u64 {
        let mut state = self.lock();
        if !state.is_of(created, stream_last) {
            state.created = Some(created);
            state.board.clear();
        }
        state.board.last_sequence()
    }

    /// Whether the board is of this stream, which may have been recreated.
    pub(super) fn is_of(&self, created: i128, stream_last: u64) -> bool {
        self.lock().is_of(created, stream_last)
    }

    /// Applies the next message.
    pub(super) fn apply(&self, sequence: u64, payload: &[u8]) {
        self.lock().board.apply(sequence, payload);
    }

    /// Sends to the viewers whether the board is current: `None`, or the reason why it is not.
    pub(super) fn set_problem(&self, problem: Option<String>) {
        let mut state = self.lock();
        if state.problem != problem {
            let _ = self.frames.send(problem_frame(problem.as_deref()));
            state.problem = problem;
        }
    }

    /// Sends the state of the templates to the viewers, if it has changed.
    pub(super) fn set_templates(&self, templates: &impl Serialize) {
        let frame = frame("templates", templates);
        let mut state = self.lock();
        if state.templates != frame {
            let _ = self.frames.send(frame.clone());
            state.templates = frame;
        }
    }

    /// Whether a viewer is connected.
    pub(super) fn has_viewers(&self) -> bool {
        self.frames.receiver_count() > 0
    }

    /// Sends the changes of the board since the last call.
    pub(super) fn flush(&self) {
        let mut state = self.lock();
        while let Some(delta) = state.board.take_delta(FRAME_ROWS) {
            // A viewer joins under the same lock, so a later one finds these changes on the board.
            if self.has_viewers() {
                let _ = self.frames.send(delta_frame(&delta));
            }
        }
    }

    /// A new viewer: the frames that it begins with, and those that follow the pages of the board.
    pub(super) fn join(&self) -> (Bytes, broadcast::Receiver<Bytes>) {
        let state = self.lock();
        let frames = self.frames.subscribe();
        let first = [problem_frame(state.problem.as_deref()), state.templates.clone()].concat();
        (first.into(), frames)
    }

    /// The frame of the rows before this id, and where the next older ones are.
    pub(super) fn page(&self, before: Option<u64>) -> (Bytes, Option<u64>) {
        let page = self.lock().board.page(before, FRAME_ROWS);
        (frame("rows", &Changes { rows: &page.rows, removed: &[] }), page.next)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_of(&self, created: i128, stream_last: u64) -> bool {
        self.created == Some(created) && self.board.last_sequence() <= stream_last
    }
}

fn delta_frame(delta: &Delta) -> Bytes {
    match delta {
        Delta::Reset => reset_frame(),
        Delta::Changes { rows, removed } => frame("rows", &Changes { rows, removed }),
    }
}

/// The page drops every row: the pages of the board follow.
pub(super) fn reset_frame() -> Bytes {
    Bytes::from_static(RESET)
}

/// The frame after which a viewer reads the pages of the board.
pub(super) fn is_reset(frame: &Bytes) -> bool {
    frame == RESET
}

const RESET: &[u8] = b"event: reset\ndata: {}\n\n";

/// The page has every row.
pub(super) fn complete_frame() -> Bytes {
    Bytes::from_static(b"event: complete\ndata: {}\n\n")
}

fn problem_frame(problem: Option<&str>) -> Bytes {
    frame("source", &json!({"problem": problem}))
}

/// One server-sent event. JSON has no line feeds.
pub(super) fn frame(event: &str, data: &impl Serialize) -> Bytes {
    let data = serde_json::to_string(data).unwrap_or_else(|_| "{}".to_owned());
    format!("event: {event}\ndata: {data}\n\n").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn added(name: &str) -> Vec<u8> {
        let event = json!({
            "type": "ADDED", "template": "simple", "name": name, "namespace": "jobs", "uid": name,
            "requestId": "r", "requestSeq": 1, "resourceVersion": "1", "time": "t", "status": {},
        });
        event.to_string().into_bytes()
    }

    #[test]
    fn changes_of_a_burst_are_a_few_frames_that_every_viewer_shares() {
        let live = Live::default();
        let mut viewers: Vec<_> = (0..50).map(|_| live.join().1).collect();
        for sequence in 1..=1000 {
            live.apply(sequence, &added(&format!("job-{sequence}")));
        }
        live.flush();
        for frames in &mut viewers {
            assert_eq!(frames.len(), 1000 / FRAME_ROWS);
        }
        let [first, second] = [0, 1].map(|viewer| viewers[viewer].try_recv().unwrap());
        assert_eq!(first.as_ptr(), second.as_ptr(), "each viewer has a copy");
    }

    #[test]
    fn a_slow_viewer_costs_a_bounded_number_of_frames() {
        let live = Live::default();
        let (_, mut slow) = live.join();
        for sequence in 1..=10 * BUFFER as u64 {
            live.apply(sequence, &added(&format!("job-{sequence}")));
            live.flush();
        }
        assert!(matches!(slow.try_recv(), Err(broadcast::error::TryRecvError::Lagged(_))));
        assert!(slow.len() <= BUFFER);
    }

    #[test]
    fn a_recreated_stream_is_read_from_its_begin() {
        let live = Live::default();
        assert_eq!(live.begin(1, 9), 0);
        live.apply(9, &added("a"));
        assert_eq!(live.begin(1, 9), 9, "the same stream continues");
        assert!(!live.is_of(2, 20) && !live.is_of(1, 8), "another stream, or one that lost messages");
        assert_eq!(live.begin(2, 20), 0);
        let (_, mut frames) = live.join();
        live.flush();
        assert!(is_reset(&frames.try_recv().unwrap()));
    }

    #[test]
    fn data_of_a_frame_is_one_line() {
        let frame = frame("rows", &json!({"name": "a\n\nevent: x\r\rdata: y\u{2028}"}));
        let text = String::from_utf8(frame.to_vec()).unwrap();
        assert_eq!(text.matches('\n').count(), 3, "{text}");
        assert!(!text.contains('\r'), "{text}");
    }
}
