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
const MAX_DELAY: Duration = Duration::from_secs(30);

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

    /// Whether the request has its Job.
    #[must_use]
    pub fn has_job(&self) -> bool {
        matches!(self, Self::Created | Self::Exists)
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

/// The delay of the next delivery after the `delivered`th one: it doubles from 0.5 s to 30 s. The
/// delay of a template's next probe is the same function of its failures.
///
/// `jitter` is between 0 and 1 and spreads the delay by a quarter to each side, so that requests
/// that failed together do not return together. A bare nak would be delivered again immediately.
#[must_use]
pub fn redelivery_delay(delivered: i64, jitter: f64) -> Duration {
    let doublings = u32::try_from(delivered.saturating_sub(1).clamp(0, 10)).unwrap_or(0);
    let delay = MIN_DELAY.saturating_mul(1 << doublings).min(MAX_DELAY);
    delay.mul_f64(0.75 + jitter.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redelivery_delay_doubles_and_is_bounded() {
        for (delivered, min, max) in
            [(1, 375, 625), (2, 750, 1250), (7, 22_500, 37_500), (1000, 22_500, 37_500)]
        {
            assert_eq!(redelivery_delay(delivered, 0.0), Duration::from_millis(min), "{delivered}");
            assert_eq!(redelivery_delay(delivered, 1.0), Duration::from_millis(max), "{delivered}");
        }
    }
}
