use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::console::RowState;

fn event(name: &str, uid: &str, kind: &str, more: &Value) -> Vec<u8> {
    let mut event = json!({
        "type": kind, "template": "simple", "name": name, "namespace": "jobs", "uid": uid,
        "requestId": "r", "requestSeq": 1, "resourceVersion": "1", "time": "2026-01-02T03:04:05Z",
        "status": {},
    });
    let fields = event.as_object_mut().unwrap();
    fields.extend(more.as_object().cloned().unwrap_or_default());
    event.to_string().into_bytes()
}

fn outcome(name: &str, uid: &str, result: &str) -> Vec<u8> {
    let outcome = json!({"result": result, "reason": "Because", "succeeded": 1, "failed": 2});
    event(name, uid, "OUTCOME", &json!({"outcome": outcome}))
}

fn only_row(board: &Board) -> Row {
    let Page { rows, next } = board.page(None, 10);
    assert_eq!((rows.len(), next), (1, None), "{rows:?}");
    rows[0].clone()
}

#[test]
fn row_follows_the_events_of_its_job() {
    let mut board = Board::new(10);
    let attempt = json!({"attempt": {"pod": "p", "exitCode": 1, "logTail": "x".repeat(64 * 1024)}});
    let stall = json!({"stall": {"reason": "Unschedulable", "message": "0/1 nodes"}});
    let suspended = json!({"status": {"conditions": [{"type": "Suspended", "status": "True"}]}});
    for (sequence, kind, more, state, attempts, reason) in [
        (5, "ADDED", json!({}), RowState::Pending, 0, None),
        (6, "MODIFIED", suspended, RowState::Suspended, 0, None),
        (7, "STALLED", stall, RowState::Stalled, 0, Some("Unschedulable")),
        (8, "MODIFIED", json!({"status": {"active": 1}}), RowState::Stalled, 0, Some("Unschedulable")),
        (9, "MODIFIED", json!({"status": {"active": 1, "ready": 1}}), RowState::Running, 0, None),
        (10, "ATTEMPT", attempt, RowState::Pending, 1, None),
        (11, "MODIFIED", json!({"status": {"failed": 2, "ready": 1}}), RowState::Running, 2, None),
        (12, "MODIFIED", json!({"status": null}), RowState::Pending, 2, None),
    ] {
        board.apply(sequence, &event("a", "u", kind, &more));
        let row = only_row(&board);
        assert_eq!((row.id, row.sequence), (5, sequence));
        assert_eq!((row.state, row.attempts, row.reason.as_deref()), (state, attempts, reason), "{kind}");
    }
    board.apply(13, &outcome("a", "u", "Failed"));
    let row = only_row(&board);
    assert_eq!((row.state, row.attempts, row.reason.as_deref()), (RowState::Failed, 3, Some("Because")));
}

#[test]
fn another_job_of_the_same_name_replaces_the_row() {
    let mut board = Board::new(10);
    board.apply(1, &outcome("a", "u1", "Complete"));
    board.take_delta(10);
    board.apply(2, &event("a", "u2", "ADDED", &json!({})));
    assert_eq!(only_row(&board).uid, "u2");
    let Some(Delta::Changes { rows, removed }) = board.take_delta(10) else { panic!("no delta") };
    assert_eq!((rows[0].id, removed), (2, vec![1]));
    assert_eq!(board.take_delta(10), None);
}

#[test]
fn ended_jobs_make_place_before_unfinished_ones() {
    let mut board = Board::new(2);
    board.apply(1, &event("old", "1", "ADDED", &json!({})));
    board.apply(2, &outcome("ended", "2", "Complete"));
    board.apply(3, &event("new", "3", "ADDED", &json!({})));
    let names = |board: &Board| -> Vec<String> {
        board.page(None, 10).rows.iter().map(|row| row.name.to_string()).collect()
    };
    assert_eq!(names(&board), ["new", "old"]);
    board.apply(4, &event("newer", "4", "ADDED", &json!({})));
    assert_eq!(names(&board), ["newer", "new"]);
}

#[test]
fn messages_that_are_no_new_status_event_change_nothing() {
    let mut board = Board::new(10);
    board.apply(5, &event("a", "u", "ADDED", &json!({})));
    let before = board.page(None, 10);
    board.apply(5, &outcome("a", "u", "Failed"));
    board.apply(4, &outcome("a", "u", "Failed"));
    for foreign in [&b""[..], b"{}", b"[]", b"\xff", br#"{"type":"ADDED","name":"<script>"}"#] {
        board.apply(board.last_sequence() + 1, foreign);
    }
    assert_eq!(board.page(None, 10), before);
}

#[test]
fn hostile_texts_are_escaped_and_bounded() {
    let mut board = Board::new(10);
    let long = "\u{202e}<script>".repeat(10_000);
    let more = json!({"stall": {"reason": long, "message": long}, "time": long});
    board.apply(1, &event("a", &long, "STALLED", &more));
    let row = only_row(&board);
    assert!(serde_json::to_string(&row).unwrap().len() < 2048, "{row:?}");
    assert!(row.reason.unwrap().starts_with("\\u202e<script>"));
    // The uid is compared as it is stored.
    board.apply(2, &event("a", &long, "MODIFIED", &json!({})));
    only_row(&board);
}

#[test]
fn a_cleared_board_resets_its_viewers_and_starts_again_from_any_sequence() {
    let mut board = Board::new(10);
    board.apply(7, &event("a", "u", "ADDED", &json!({})));
    board.clear();
    assert_eq!(board.take_delta(10), Some(Delta::Reset));
    board.apply(1, &event("b", "u", "ADDED", &json!({})));
    assert_eq!(only_row(&board).id, 1);
}

/// What a page in a browser shows.
#[derive(Default)]
struct Viewer {
    rows: BTreeMap<u64, Row>,
    /// The next page to read has the rows before this id.
    next: Option<u64>,
}

impl Viewer {
    fn put(&mut self, rows: Vec<Row>) {
        for row in rows {
            let is_newer = self.rows.get(&row.id).is_none_or(|shown| shown.sequence < row.sequence);
            if is_newer {
                self.rows.insert(row.id, row);
            }
        }
    }

    fn read_page(&mut self, board: &Board) {
        if let Some(before) = self.next {
            let page = board.page(Some(before), 2);
            self.put(page.rows);
            self.next = page.next;
        }
    }

    fn apply(&mut self, delta: Delta) {
        match delta {
            Delta::Reset => *self = Self { next: Some(u64::MAX), ..Self::default() },
            Delta::Changes { rows, removed } => {
                self.put(rows);
                removed.iter().for_each(|id| drop(self.rows.remove(id)));
            }
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Event { name: u8, uid: u8, ends: bool },
    Clear,
    Flush,
    ReadPage,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..6_u8, 0..3_u8, any::<bool>()).prop_map(|(name, uid, ends)| Step::Event { name, uid, ends }),
        1 => Just(Step::Clear),
        2 => Just(Step::Flush),
        3 => Just(Step::ReadPage),
    ]
}

proptest! {
    /// A delta that the board made before a page was read arrives after that page.
    #[test]
    fn every_viewer_converges_to_the_board(
        steps in proptest::collection::vec(step(), 0..80),
        joins_at in 0..40_usize,
        max_rows in 1..6_usize,
    ) {
        let mut board = Board::new(max_rows);
        let mut viewer = Viewer::default();
        let mut in_flight = Vec::new();
        let mut sequence = 0;
        for (at, step) in steps.into_iter().enumerate() {
            if at == joins_at {
                in_flight.clear();
                viewer.next = Some(u64::MAX);
            }
            match step {
                Step::Event { name, uid, ends } => {
                    sequence += 1;
                    let (name, uid) = (format!("n{name}"), format!("u{uid}"));
                    let event = if ends {
                        outcome(&name, &uid, "Complete")
                    } else {
                        event(&name, &uid, "MODIFIED", &json!({}))
                    };
                    board.apply(sequence, &event);
                }
                Step::Clear => board.clear(),
                Step::Flush => in_flight.extend(board.take_delta(3)),
                Step::ReadPage => viewer.read_page(&board),
            }
            prop_assert!(board.rows.len() <= max_rows);
            prop_assert_eq!(board.rows.len(), board.by_name.len());
            prop_assert!(board.removed.len() <= max_rows && board.changed.len() <= max_rows);
        }
        if viewer.next.is_none() && viewer.rows.is_empty() {
            in_flight.clear();
            viewer.next = Some(u64::MAX);
        }
        while viewer.next.is_some() {
            viewer.read_page(&board);
        }
        in_flight.into_iter().for_each(|delta| viewer.apply(delta));
        while let Some(delta) = board.take_delta(3) {
            viewer.apply(delta);
        }
        while viewer.next.is_some() {
            viewer.read_page(&board);
        }
        prop_assert_eq!(viewer.rows, board.rows);
    }
}
