//! How one delivery of a request ends, and when the next one follows.

use std::time::Duration;

/// How long the server waits for an ack before it delivers a request again.
///
/// Longer than [`HANDLE_DEADLINE`] plus the ack, so that two replicas never handle one request at
/// the same time.
pub const ACK_WAIT: Duration = Duration::from_secs(60);

/// The deadline of the intake for one request, without the ack.
pub const HANDLE_DEADLINE: Duration = Duration::from_secs(35);

const MIN_DELAY: Duration = Duration::from_millis(500);
const MAX_DELAY: Duration = Duration::from_secs(16);

/// How one delivery of a request ended. The intake acks, counts and traces accordingly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Disposition {
    /// This delivery created the Job.
    Created,
    /// The Job existed already.
    Exists,
    /// The request is a dead letter.
    Rejected,
    /// The request is delivered again later, for this reason.
    Retrying(String),
    /// As `Retrying`; no request of the template can succeed until configuration or permissions
    /// change.
    Blocked(String),
}

impl Disposition {
    /// Every value that [`Self::label`] returns.
    pub const LABELS: [&str; 5] = ["created", "exists", "rejected", "retrying", "blocked"];

    /// The value of the label `result` in metrics and spans.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Exists => "exists",
            Self::Rejected => "rejected",
            Self::Retrying(_) => "retrying",
            Self::Blocked(_) => "blocked",
        }
    }

    /// Whether the request is not delivered again.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Created | Self::Exists | Self::Rejected)
    }

    /// The disposition if the server did not confirm the ack: it delivers the request again. If the
    /// dispatcher may not publish acks, that applies to every request.
    #[must_use]
    pub fn unconfirmed(self, error: &str) -> Self {
        match self {
            Self::Created | Self::Exists | Self::Rejected => {
                Self::Blocked(format!("stream JOBS: the ack is not confirmed: {error}"))
            }
            Self::Retrying(_) | Self::Blocked(_) => self,
        }
    }
}

/// Whether the server confirms acks. If it does not, the reason applies to every request.
#[derive(Debug, Default)]
pub struct AckState {
    unconfirmed: Option<Duration>,
}

impl AckState {
    /// The server confirmed an ack.
    pub fn confirmed(&mut self) {
        self.unconfirmed = None;
    }

    /// The server did not confirm an ack.
    pub fn unconfirmed(&mut self, now: Duration) {
        self.unconfirmed = Some(now);
    }

    /// Whether acks fail. An unconfirmed ack may have arrived: then its request is not delivered
    /// again, and cannot be confirmed. So this lapses after twice the time to the next delivery.
    #[must_use]
    pub fn fails(&self, now: Duration) -> bool {
        self.unconfirmed.is_some_and(|at| now.saturating_sub(at) < ACK_WAIT.saturating_mul(2))
    }
}

/// The delay of the next delivery after the `delivered`th one: it doubles from 0.5 s to 16 s. While
/// the circuit breaker is open, nothing is pulled, so a due request costs nothing. A bare nak would
/// be delivered again immediately.
#[must_use]
pub fn redelivery_delay(delivered: i64, jitter: f64) -> Duration {
    delay(u32::try_from(delivered.max(1)).unwrap_or(u32::MAX), MAX_DELAY, jitter)
}

/// The delay after the `failures`th failure: it doubles from 0.5 s to `max`.
///
/// `jitter` is between 0 and 1 and spreads the delay by a quarter to each side, so that requests
/// that failed together do not return together.
pub(crate) fn delay(failures: u32, max: Duration, jitter: f64) -> Duration {
    let doublings = failures.saturating_sub(1).min(20);
    let delay = MIN_DELAY.saturating_mul(1 << doublings).min(max);
    delay.mul_f64(0.75 + jitter.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acks_fail_until_one_is_confirmed() {
        let (mut acks, second) = (AckState::default(), Duration::from_secs);
        assert!(!acks.fails(second(0)));
        acks.unconfirmed(second(1));
        assert!(acks.fails(second(1)));
        acks.confirmed();
        assert!(!acks.fails(second(2)));
    }

    #[test]
    fn acks_fail_for_as_long_as_each_redelivery_is_unconfirmed() {
        let mut acks = AckState::default();
        for redelivery in 0..5 {
            let now = ACK_WAIT * redelivery;
            acks.unconfirmed(now);
            assert!(acks.fails(now + ACK_WAIT + HANDLE_DEADLINE));
        }
    }

    #[test]
    fn unconfirmed_ack_that_arrived_lapses() {
        let mut acks = AckState::default();
        acks.unconfirmed(Duration::ZERO);
        assert!(!acks.fails(ACK_WAIT * 2));
    }

    #[test]
    fn unconfirmed_ack_blocks_each_final_disposition_and_keeps_the_others() {
        for done in [Disposition::Created, Disposition::Exists, Disposition::Rejected] {
            let blocked = done.unconfirmed("timed out");
            let reason = "stream JOBS: the ack is not confirmed: timed out";
            assert_eq!(blocked, Disposition::Blocked(reason.to_owned()));
        }
        for again in [Disposition::Retrying("a".to_owned()), Disposition::Blocked("b".to_owned())] {
            assert_eq!(again.clone().unconfirmed("timed out"), again);
        }
    }

    #[test]
    fn redelivery_delay_doubles_and_is_bounded() {
        for (delivered, min, max) in
            [(1, 375, 625), (2, 750, 1250), (6, 12_000, 20_000), (1000, 12_000, 20_000)]
        {
            assert_eq!(redelivery_delay(delivered, 0.0), Duration::from_millis(min), "{delivered}");
            assert_eq!(redelivery_delay(delivered, 1.0), Duration::from_millis(max), "{delivered}");
        }
    }
}
