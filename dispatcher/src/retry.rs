//! Retries: one backoff for every component that tries until it succeeds.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};

/// Endless delays between tries: 100 ms doubling to 10 s, with jitter. Each try has a deadline of
/// its own.
pub(crate) fn backoff() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_secs(10))
        .with_jitter()
        .without_max_times()
        .build()
}
