use std::time::{Duration, SystemTime};

use crate::checker::{Delays, History};

use super::good;

fn at(second: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(second)
}

#[test]
fn the_longest_delay_is_told_of_jobs_rejections_and_outcomes() {
    let mut history = good();
    assert_eq!(Delays::of(&history), Delays::default(), "nothing is known of times");
    let times = &mut history.times;
    times.said = history.status.iter().map(|message| (message.stream_seq, at(10))).collect();
    times.rejected = history.rejected.iter().map(|letter| (letter.stream_seq, at(10))).collect();
    // The first becomes a Job, the fourth is rejected; of one that is stored nowhere nothing is measured.
    times.acknowledged = [(1, at(8)), (4, at(7)), (99, at(1))].into();
    times.ended = [("complete".to_owned(), at(9)), ("unknown".to_owned(), at(1))].into();
    let expected = Delays { to_job: Some(Duration::from_secs(3)), to_outcome: Some(Duration::from_secs(1)) };
    assert_eq!(Delays::of(&history), expected);
}

#[test]
fn an_answer_before_the_ack_was_seen_took_no_time() {
    let mut history: History = good();
    history.times.said = history.status.iter().map(|message| (message.stream_seq, at(10))).collect();
    history.times.acknowledged = [(1, at(11))].into();
    assert_eq!(Delays::of(&history).to_job, Some(Duration::ZERO));
}
