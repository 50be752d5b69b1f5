//! How many requests of a flow may be in flight: more as long as they do not wait for each other.

use std::{collections::HashMap, time::Duration};

/// What a request cost: only requests of one kind are compared with each other.
pub type Kind = &'static str;

/// The requests that are always allowed in flight, and the first limit of a template.
pub const MIN: usize = 4;
/// The shortest round, in requests.
const MIN_ROUND: usize = 8;
/// If the requests of a round take this many times as long as usual, fewer are allowed.
const SLOW: f64 = 2.0;
/// Below this, more are allowed.
const FAST: f64 = 1.5;
/// How fast the measured times change the usual one.
const WEIGHT: f64 = 0.25;

/// The limit, and the times that change it.
#[derive(Debug)]
pub(super) struct Limit {
    limit: usize,
    /// The seconds that requests of a kind take while few are in flight.
    usual: HashMap<Kind, f64>,
    /// The requests of this round, and the sum of their times relative to the usual ones.
    ended: u32,
    ratios: f64,
    /// Whether every allowed request was in flight at some time of this round.
    was_full: bool,
}

impl Limit {
    pub(super) fn new() -> Self {
        Self { limit: MIN, usual: HashMap::new(), ended: 0, ratios: 0.0, was_full: false }
    }

    /// The requests that may be in flight.
    pub(super) fn get(&self) -> usize {
        self.limit
    }

    /// Every allowed request is in flight.
    pub(super) fn reached(&mut self) {
        self.was_full = true;
    }

    /// A request took so long. A round of them changes the limit, up to `max`.
    pub(super) fn add(&mut self, kind: Kind, took: Duration, max: usize) {
        let seconds = took.as_secs_f64().max(1e-6);
        let usual = self.usual.entry(kind).or_insert(seconds);
        // With few in flight, a slow request is slow for another reason.
        if seconds < *usual || self.limit <= MIN {
            *usual += (seconds - *usual) * WEIGHT;
        }
        self.ended += 1;
        self.ratios += seconds / *usual;
        if usize::try_from(self.ended).is_ok_and(|ended| ended >= self.limit.max(MIN_ROUND)) {
            self.end_round(max);
        }
    }

    fn end_round(&mut self, max: usize) {
        let ratio = self.ratios / f64::from(self.ended);
        if ratio > SLOW {
            self.limit = (self.limit * 3 / 4).max(MIN);
        } else if ratio < FAST && self.was_full {
            self.limit = (self.limit + 1).min(max.max(MIN));
        }
        (self.ended, self.ratios, self.was_full) = (0, 0.0, false);
    }
}
