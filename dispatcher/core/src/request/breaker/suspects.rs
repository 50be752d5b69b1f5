//! Requests that fail while others succeed: their failures are no evidence of an outage.
//!
//! Their delay doubles up to ten minutes. Beyond `max` they become dead letters, the oldest first,
//! so that they never fill the consumer's `max_ack_pending`.

use std::{collections::BTreeMap, time::Duration};

use crate::request::{breaker::Verdict, delivery::delay};

const MAX_DELAY: Duration = Duration::from_secs(600);
/// Suspects beyond `max` times this become dead letters at any age.
const HARD_LIMIT: usize = 5;
/// Entries beyond `max` times this are forgotten.
const CAPACITY: usize = 10;
/// How long a request fails, without a success of another one, before it may become a dead letter.
const MIN_AGE: Duration = Duration::from_secs(600);

/// A request that fails while others succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Suspect {
    /// Its failures as a suspect.
    pub failures: u32,
    /// When it failed first.
    pub first: Duration,
    /// When it is delivered again.
    pub due: Duration,
}

/// The suspects of a template.
#[derive(Debug)]
pub(super) struct Suspects {
    max: usize,
    by_sequence: BTreeMap<u64, Suspect>,
}

impl Suspects {
    pub(super) fn new(max: usize) -> Self {
        Self { max: max.max(1), by_sequence: BTreeMap::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.by_sequence.len()
    }

    /// The largest number of remembered requests.
    pub(super) fn capacity(&self) -> usize {
        self.max.saturating_mul(CAPACITY)
    }

    pub(super) fn due(&self, now: Duration) -> usize {
        self.by_sequence.values().filter(|suspect| suspect.due <= now).count()
    }

    pub(super) fn add(&mut self, sequence: u64, suspect: Suspect, now: Duration) {
        if self.len() >= self.capacity() {
            // Overdue ones were cancelled, or another replica has them.
            self.by_sequence.retain(|_, suspect| suspect.due.saturating_add(MAX_DELAY) > now);
        }
        while self.len() >= self.capacity() {
            self.by_sequence.pop_first();
        }
        self.by_sequence.insert(sequence, suspect);
    }

    pub(super) fn remove(&mut self, sequence: u64) {
        self.by_sequence.remove(&sequence);
    }

    /// The verdict on a suspect that failed again; `None` if the request is no suspect.
    pub(super) fn failed_again(
        &mut self,
        sequence: u64,
        last_success: Option<Duration>,
        now: Duration,
        jitter: f64,
    ) -> Option<Verdict> {
        let suspect = self.by_sequence.get_mut(&sequence)?;
        suspect.failures = suspect.failures.saturating_add(1);
        let delay = delay(suspect.failures, MAX_DELAY, jitter);
        suspect.due = now.saturating_add(delay);
        let suspect = *suspect;
        match self.is_excess(sequence, suspect, last_success, now) {
            true => Some(Verdict::Reject(delay)),
            false => Some(Verdict::Retry(delay)),
        }
    }

    fn is_excess(
        &self,
        sequence: u64,
        suspect: Suspect,
        last_success: Option<Duration>,
        now: Duration,
    ) -> bool {
        let excess = self.len().saturating_sub(self.max);
        // Without a success since, all may fail for a common reason that the canary does not find.
        let others_succeed = last_success.is_some_and(|success| success > suspect.first);
        if self.len() > self.max.saturating_mul(HARD_LIMIT) {
            return others_succeed || now.saturating_sub(suspect.first) >= MIN_AGE;
        }
        let key = (suspect.first, sequence);
        let is_older = |(sequence, other): (&u64, &Suspect)| (other.first, *sequence) < key;
        excess > 0
            && others_succeed
            && self.by_sequence.iter().filter(|entry| is_older(*entry)).take(excess).count() < excess
    }
}
