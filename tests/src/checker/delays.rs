//! How long things took, at the worst: figures beside the judgement.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use super::History;

/// The longest delays of a run; `None` where there was nothing to measure.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Delays {
    /// From a request's `PubAck` to its Job's `ADDED`, or its rejection, stored.
    pub to_job: Option<Duration>,
    /// From a Job's final condition, or its deletion, as a watch saw it, to its `OUTCOME` stored.
    pub to_outcome: Option<Duration>,
}

impl Delays {
    /// The longest delays of a history.
    #[must_use]
    pub fn of(history: &History) -> Self {
        let times = &history.times;
        let mut answers: BTreeMap<u64, SystemTime> = BTreeMap::new();
        let mut outcomes: BTreeMap<&str, SystemTime> = BTreeMap::new();
        for message in &history.status {
            let Some(time) = times.said.get(&message.stream_seq) else { continue };
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
        for letter in &history.rejected {
            if let Some((request, time)) = letter.request_seq().zip(times.rejected.get(&letter.stream_seq)) {
                answers.entry(request).or_insert(*time);
            }
        }
        let to_job = times.acknowledged.iter().filter_map(|(seq, asked)| since(*asked, *answers.get(seq)?));
        let to_outcome =
            times.ended.iter().filter_map(|(uid, ended)| since(*ended, *outcomes.get(uid.as_str())?));
        Self { to_job: to_job.max(), to_outcome: to_outcome.max() }
    }
}

/// Zero where the answer was there before it was seen what it answers.
fn since(from: SystemTime, to: SystemTime) -> Option<Duration> {
    Some(to.duration_since(from).unwrap_or_default())
}
