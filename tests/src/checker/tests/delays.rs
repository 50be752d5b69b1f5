use std::time::{Duration, SystemTime};

use crate::checker::{Delays, History};

use super::valid;

fn at(second: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(second)
}

#[test]
fn longest_delays_cover_jobs_rejections_and_outcomes() {
    let mut history = valid();
    assert_eq!(Delays::of(&history), Delays::default(), "a history without times");
    let times = &mut history.times;
    times.published = history.status.iter().map(|message| (message.stream_seq, at(10))).collect();
    times.rejected = history.rejected.iter().map(|dead_letter| (dead_letter.stream_seq, at(10))).collect();
    // Request 1 creates a Job, request 4 is rejected, request 99 is not stored.
    times.acknowledged = [(1, at(8)), (4, at(7)), (99, at(1))].into();
    times.finished = [("complete".to_owned(), at(9)), ("unknown".to_owned(), at(1))].into();
    let expected = Delays { to_job: Some(Duration::from_secs(3)), to_outcome: Some(Duration::from_secs(1)) };
    assert_eq!(Delays::of(&history), expected);
}

#[test]
fn result_observed_before_its_ack_has_no_delay() {
    let mut history: History = valid();
    history.times.published = history.status.iter().map(|message| (message.stream_seq, at(10))).collect();
    history.times.acknowledged = [(1, at(11))].into();
    assert_eq!(Delays::of(&history).to_job, Some(Duration::ZERO));
}
