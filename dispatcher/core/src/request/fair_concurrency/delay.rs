//! Whether the requests of a template with little work take longer than usual.

use std::{collections::HashMap, time::Duration};

use super::limit::Kind;

/// Requests are slow if they take this many times as long as usual.
const SLOW: f64 = 1.4;
/// How much a single request counts: one slow request is no sign.
const WEIGHT: f64 = 0.15;
/// The largest ratio that counts.
const MOST: f64 = 3.5;
/// How fast the usual time follows faster requests.
const FASTER: f64 = 0.1;
/// How long the usual time takes to follow slower requests: the cluster itself may become slower.
const SLOWER: Duration = Duration::from_mins(5);

/// The times of the requests of one template.
#[derive(Debug, Default)]
pub(super) struct Delay {
    /// By kind: the usual seconds, and when they were updated.
    usual: HashMap<Kind, (f64, Duration)>,
    /// The times of the last requests relative to the usual ones.
    ratio: f64,
}

impl Delay {
    /// A request took so long. Returns whether the template's requests are slow now.
    pub(super) fn add(&mut self, kind: Kind, took: Duration, now: Duration) -> bool {
        let seconds = took.as_secs_f64().max(1e-6);
        let (usual, at) = self.usual.entry(kind).or_insert((seconds, now));
        let ratio = seconds / *usual;
        let weight = if ratio < 1.0 {
            FASTER
        } else {
            (now.saturating_sub(*at).as_secs_f64() / SLOWER.as_secs_f64()).min(1.0)
        };
        *usual *= 1.0 + (ratio.min(2.0) - 1.0) * weight;
        *at = now;
        self.ratio += (ratio.min(MOST) - self.ratio) * WEIGHT;
        self.ratio > SLOW
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(delay: &mut Delay, from: u64, requests: u64, millis: u64) -> bool {
        let add = |second| delay.add("created", Duration::from_millis(millis), Duration::from_secs(second));
        (from..from + requests).map(add).last().unwrap_or(false)
    }

    #[test]
    fn several_slow_requests_are_slow_and_one_is_not() {
        let mut delay = Delay::default();
        assert!(!add(&mut delay, 0, 100, 10));
        assert!(!add(&mut delay, 100, 1, 1000));
        assert!(!add(&mut delay, 101, 20, 10));
        assert!(add(&mut delay, 121, 10, 20));
    }

    #[test]
    fn slowness_that_lasts_becomes_usual() {
        let mut delay = Delay::default();
        add(&mut delay, 0, 100, 10);
        assert!(add(&mut delay, 100, 60, 20));
        assert!(!add(&mut delay, 160, 900, 20));
    }

    #[test]
    fn kinds_are_not_compared_with_each_other() {
        let mut delay = Delay::default();
        for second in 0..100 {
            let now = Duration::from_secs(second);
            assert!(!delay.add("rejected", Duration::from_millis(1), now));
            assert!(!delay.add("created", Duration::from_millis(10), now));
        }
    }
}
