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

/// Empty probes after which the breaker closes: by then every delayed request was due.
pub const MAX_EMPTY_PROBES: u32 = 4;

impl CircuitBreaker {
    /// The breaker after a request that was pulled as a probe or among others.
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
            // In flight when the breaker opened: the same failure, not another one.
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
    pub fn limit(self, concurrency: usize) -> usize {
        match self {
            Self::Closed => concurrency,
            Self::HalfOpen(limit) => limit.min(concurrency),
            Self::Open { .. } => 1,
        }
    }

    /// Whether the breaker is open.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Open { .. })
    }
}

#[cfg(test)]
mod tests;
