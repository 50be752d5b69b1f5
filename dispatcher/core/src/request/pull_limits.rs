//! The limits that an operator sets on the pulls of a consumer. The server refuses a pull that asks
//! for more.

use std::time::Duration;

/// The limits of one consumer. Its limit of bytes applies only to pulls that ask for bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PullLimits {
    batch: Option<usize>,
    expires: Option<Duration>,
}

impl PullLimits {
    /// The limits `max_batch` and `max_expires` of a consumer. Zero and less mean no limit.
    #[must_use]
    pub fn new(max_batch: i64, max_expires: Duration) -> Self {
        Self {
            batch: usize::try_from(max_batch).ok().filter(|batch| *batch > 0),
            expires: Some(max_expires).filter(|expires| !expires.is_zero()),
        }
    }

    /// How many requests to ask for instead of `wanted`.
    #[must_use]
    pub fn batch(&self, wanted: usize) -> usize {
        self.batch.map_or(wanted, |batch| wanted.min(batch))
    }

    /// How long the pull waits instead of `wanted`.
    #[must_use]
    pub fn expires(&self, wanted: Duration) -> Duration {
        self.expires.map_or(wanted, |expires| wanted.min(expires))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pull_asks_for_no_more_than_the_consumer_allows() {
        let second = Duration::from_secs(1);
        for (max_batch, max_expires, batch, expires) in [
            (0, Duration::ZERO, 32, 5 * second),
            (-1, Duration::ZERO, 32, 5 * second),
            (10, Duration::ZERO, 10, 5 * second),
            (100, 60 * second, 32, 5 * second),
            (1, second, 1, second),
        ] {
            let limits = PullLimits::new(max_batch, max_expires);
            assert_eq!((limits.batch(32), limits.expires(5 * second)), (batch, expires));
        }
    }
}
