//! The longest delays of a run; not part of the check.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use super::History;

/// The longest delays; `None` if there was nothing to measure.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Delays {
    /// From the `PubAck` of a request until the `ADDED` of its Job, or its dead letter, is stored.
    pub to_job: Option<Duration>,
    /// From the final condition or deletion of a Job, as watched, until its `OUTCOME` is stored.
    pub to_outcome: Option<Duration>,
}

impl Delays {
    /// Computes the delays of a run.
    #[must_use]
    pub fn of(history: &History) -> Self {
        let times = &history.times;
        let mut answers: BTreeMap<u64, SystemTime> = BTreeMap::new();
        let mut outcomes: BTreeMap<&str, SystemTime> = BTreeMap::new();
        for message in &history.status {
            let Some(time) = times.published.get(&message.stream_seq) else { continue };
            let event = &message.event;
            match event["type"].as_str() {
                Some("ADDED") => event["requestSeq"].as_u64().into_iter().for_each(|request| {
                    answers.entry(request).or_insert(*time);
                }),
                Some("OUTCOME") => event["uid"].as_str().into_iter().for_each(|uid| {
                    outcomes.entry(uid).or_insert(*time);
                }),
                _ => {}
            }
        }
        for dead_letter in &history.rejected {
            if let Some((request, time)) =
                dead_letter.request_seq().zip(times.rejected.get(&dead_letter.stream_seq))
            {
                answers.entry(request).or_insert(*time);
            }
        }
        let to_job = times
            .acknowledged
            .iter()
            .filter_map(|(seq, published)| Some(since(*published, *answers.get(seq)?)));
        let to_outcome = times
            .finished
            .iter()
            .filter_map(|(uid, finished)| Some(since(*finished, *outcomes.get(uid.as_str())?)));
        Self { to_job: to_job.max(), to_outcome: to_outcome.max() }
    }
}

/// Zero if the second event was observed first.
fn since(from: SystemTime, to: SystemTime) -> Duration {
    to.duration_since(from).unwrap_or_default()
}
