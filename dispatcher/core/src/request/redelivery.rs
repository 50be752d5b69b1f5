//! The delay before a request is delivered again, and before a template is probed.

use std::time::Duration;

const MIN_DELAY: Duration = Duration::from_millis(500);
const MAX_DELAY: Duration = Duration::from_secs(30);

/// The delay after the `delivered`th delivery: it doubles from 0.5 s to 30 s.
///
/// `jitter` is between 0 and 1 and spreads the delay by a quarter to each side, so that requests
/// that failed together do not return together. A bare nak would be delivered again at once.
pub fn delay(delivered: i64, jitter: f64) -> Duration {
    let doublings = u32::try_from(delivered.saturating_sub(1).clamp(0, 10)).unwrap_or(0);
    let delay = MIN_DELAY.saturating_mul(1 << doublings).min(MAX_DELAY);
    delay.mul_f64(0.75 + jitter.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_doubles_and_is_bounded() {
        for (delivered, min, max) in
            [(1, 375, 625), (2, 750, 1250), (7, 22_500, 37_500), (1000, 22_500, 37_500)]
        {
            assert_eq!(delay(delivered, 0.0), Duration::from_millis(min), "{delivered}");
            assert_eq!(delay(delivered, 1.0), Duration::from_millis(max), "{delivered}");
        }
    }
}
