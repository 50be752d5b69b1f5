//! The circuit breaker of a template: how many requests to pull, given how earlier ones ended.

use crate::request::Disposition;

/// Whether requests of a template can succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CircuitBreaker {
    /// Requests succeed: pull as many as there are free permits.
    Closed,
    /// Requests fail: wait, then pull one as a probe.
    Open {
        /// Failures in a row. Requests in flight together count as one.
        failures: i64,
        /// Probes since the last failure that found no message.
        empty_probes: u32,
    },
    /// A probe succeeded: pull at most this many, one more with each success. A quota with one free
    /// slot would fail a full batch.
    HalfOpen(usize),
}

/// Empty probes after which the breaker closes: every delayed request was due in that time.
pub const MAX_EMPTY_PROBES: u32 = 4;

impl CircuitBreaker {
    /// The breaker after a delivery that was pulled as a probe or in a batch.
    #[must_use]
    pub fn after(self, disposition: &Disposition, probe: bool, concurrency: usize) -> Self {
        match (disposition, self) {
            (Disposition::Created | Disposition::Exists, Self::Open { .. }) => Self::HalfOpen(2),
            (Disposition::Created | Disposition::Exists, Self::HalfOpen(limit)) if limit < concurrency => {
                Self::HalfOpen(limit + 1)
            }
            (Disposition::Created | Disposition::Exists, _) => Self::Closed,
            // A rejection is no evidence that Jobs can be created.
            (Disposition::Rejected, breaker) => breaker,
            (_, Self::Open { failures, .. }) if probe => {
                Self::Open { failures: failures.saturating_add(1), empty_probes: 0 }
            }
            // The request was in flight when the breaker opened: it is the same failure.
            (_, Self::Open { failures, .. }) => Self::Open { failures, empty_probes: 0 },
            _ => Self::Open { failures: 1, empty_probes: 0 },
        }
    }

    /// The breaker after a probe that found no message.
    #[must_use]
    pub fn after_empty_probe(self) -> Self {
        match self {
            Self::Open { failures, empty_probes } if empty_probes < MAX_EMPTY_PROBES => {
                Self::Open { failures, empty_probes: empty_probes + 1 }
            }
            _ => Self::Closed,
        }
    }

    /// The largest number of requests to pull at a time.
    #[must_use]
    pub fn limit(self, concurrency: usize) -> usize {
        match self {
            Self::Closed => concurrency,
            Self::HalfOpen(limit) => limit.min(concurrency),
            Self::Open { .. } => 1,
        }
    }

    /// Whether the breaker is open.
    #[must_use]
    pub fn is_open(self) -> bool {
        matches!(self, Self::Open { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONCURRENCY: usize = 8;

    fn retrying() -> Disposition {
        Disposition::Retrying("quota".into())
    }

    fn open(failures: i64, empty_probes: u32) -> CircuitBreaker {
        CircuitBreaker::Open { failures, empty_probes }
    }

    #[test]
    fn retrying_request_opens_the_breaker_and_successes_close_it_gradually() {
        let breaker = CircuitBreaker::Closed.after(&retrying(), false, CONCURRENCY);
        assert_eq!(breaker, open(1, 0));
        let breaker = breaker.after(&Disposition::Blocked("permission".into()), true, CONCURRENCY);
        assert_eq!((breaker, breaker.limit(CONCURRENCY)), (open(2, 0), 1));
        let mut breaker = breaker.after(&Disposition::Created, true, CONCURRENCY);
        for limit in 2..=CONCURRENCY {
            assert_eq!(breaker.limit(CONCURRENCY), limit);
            assert!(breaker.after(&retrying(), false, CONCURRENCY).is_open());
            breaker = breaker.after(&Disposition::Exists, false, CONCURRENCY);
        }
        assert_eq!(breaker, CircuitBreaker::Closed);
    }

    /// Otherwise a short outage that failed many requests would delay the first probe by 30 s.
    #[test]
    fn requests_that_fail_together_count_as_one_failure() {
        let mut breaker = CircuitBreaker::Closed;
        for _ in 0..CONCURRENCY {
            breaker = breaker.after(&retrying(), false, CONCURRENCY);
        }
        assert_eq!(breaker, open(1, 0));
        assert_eq!(breaker.after(&retrying(), true, CONCURRENCY), open(2, 0));
    }

    #[test]
    fn rejection_does_not_change_the_breaker() {
        for breaker in [CircuitBreaker::Closed, CircuitBreaker::HalfOpen(3), open(2, 1)] {
            assert_eq!(breaker.after(&Disposition::Rejected, true, CONCURRENCY), breaker);
        }
    }

    #[test]
    fn empty_probes_close_the_breaker() {
        let mut breaker = open(5, 0);
        for _ in 0..MAX_EMPTY_PROBES {
            breaker = breaker.after_empty_probe();
            assert!(breaker.is_open());
        }
        assert_eq!(breaker.after_empty_probe(), CircuitBreaker::Closed);
    }
}
