//! How many requests per second a template may start while it slows down others.
//!
//! A token bucket: its rate falls while the requests of other templates are slow, and grows while
//! they are not. The rate is kept while the template has no work.

use std::time::Duration;

/// The first rate, in requests per second.
pub(super) const FIRST: f64 = 100.0;
/// The lowest rate. A template that is slowed down also has the rate of the others.
pub(super) const LOWEST: f64 = 5.0;
/// From this rate on, nothing is limited.
const HIGHEST: f64 = 10_000.0;
/// The growth per second while other templates have requests, and while they have none.
const GROWTH: f64 = 1.15;
const FAST_GROWTH: f64 = 2.0;
/// Below this many requests per second, the other templates have none.
const NONE: f64 = 0.1;
/// The part of the rate that remains while other requests are slow.
const REDUCTION: f64 = 0.5;
/// The time between two reductions: the first one needs it to show its effect.
const REDUCTION_PAUSE: Duration = Duration::from_millis(200);
/// A pull is for the tokens of this time.
const BATCH: Duration = Duration::from_millis(50);

/// A token bucket with a changing rate.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    rate: f64,
    tokens: f64,
    at: Duration,
    reduced: Option<Duration>,
}

impl Pace {
    pub(super) fn new(now: Duration) -> Self {
        Self { rate: FIRST, tokens: 1.0, at: now, reduced: None }
    }

    /// The whole tokens, or the time until there are some. `least`: the rate in any case.
    pub(super) fn tokens(&self, least: f64, now: Duration) -> Result<usize, Duration> {
        let Self { rate, tokens, .. } = self.refilled(least, now);
        if tokens >= 1.0 {
            #[expect(clippy::cast_possible_truncation, reason = "at most the tokens of a batch")]
            return Ok(tokens as usize);
        }
        let rate = rate.max(least);
        Err(Duration::from_secs_f64((batch(rate) - tokens).max(0.0) / rate))
    }

    /// A request starts. Requests of an earlier pull may exceed the tokens.
    pub(super) fn start(&mut self, least: f64, now: Duration) {
        *self = self.refilled(least, now);
        self.tokens = (self.tokens - 1.0).max(-batch(self.rate));
    }

    /// The requests of other templates are slow.
    pub(super) fn slow_down(&mut self, least: f64, now: Duration) {
        *self = self.refilled(least, now);
        if self.reduced.is_none_or(|reduced| now.saturating_sub(reduced) >= REDUCTION_PAUSE) {
            self.rate = (self.rate * REDUCTION).max(LOWEST);
            self.reduced = Some(now);
        }
    }

    fn refilled(&self, least: f64, now: Duration) -> Self {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        let rate = self.rate.max(least);
        let most = batch(rate);
        let tokens = (self.tokens + rate * passed).min(most);
        // A template that does not use its tokens needs no higher rate.
        let growing = (tokens - self.tokens).max(0.0) / rate;
        let growth = if least < NONE { FAST_GROWTH } else { GROWTH };
        let rate = (self.rate * growth.powf(growing)).clamp(LOWEST, HIGHEST);
        Self { rate, tokens, at: now, ..*self }
    }
}

/// The tokens of a pull at this rate: at least one.
fn batch(rate: f64) -> f64 {
    (rate * BATCH.as_secs_f64()).max(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OTHERS: f64 = 2.0;

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// Takes every token for a second from `from` on; their number.
    fn use_up(pace: &mut Pace, from: u64, others: f64) -> usize {
        let mut started = 0;
        for millis in from..from + 1000 {
            let tokens = pace.tokens(others, at(millis)).unwrap_or(0);
            (0..tokens).for_each(|_| pace.start(others, at(millis)));
            started += tokens;
        }
        started
    }

    #[test]
    fn rate_grows_while_it_is_used_and_stays_while_it_is_not() {
        let mut pace = Pace::new(at(0));
        let first = use_up(&mut pace, 0, OTHERS);
        let second = use_up(&mut pace, 1000, OTHERS);
        assert!((100..=115).contains(&first) && second > first, "{first}, {second}");
        let later = use_up(&mut pace, 600_000, OTHERS);
        assert!((second..second * 5 / 4).contains(&later), "{second}, {later}");
    }

    #[test]
    fn slow_requests_of_others_halve_the_rate_once_per_effect_down_to_that_of_the_others() {
        let mut pace = Pace::new(at(0));
        (0..200).for_each(|millis| pace.slow_down(OTHERS, at(millis)));
        let halved = use_up(&mut pace, 200, OTHERS);
        assert!((50..=60).contains(&halved), "{halved}");
        (2000..20_000).for_each(|millis| pace.slow_down(30.0, at(millis)));
        let least = use_up(&mut pace, 20_000, 30.0);
        assert!((30..=32).contains(&least), "{least}");
    }

    #[test]
    fn without_requests_of_others_the_rate_doubles_each_second() {
        let mut pace = Pace::new(at(0));
        for millis in 0..5000 {
            let tokens = pace.tokens(0.0, at(millis)).unwrap_or(0);
            (0..tokens).for_each(|_| pace.start(0.0, at(millis)));
        }
        assert!(pace.rate > 3000.0, "{}", pace.rate);
    }
}
