//! How long a request waits until it is delivered again, and a kind until it probes.

use std::time::Duration;

use uuid::Uuid;

const SHORTEST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);

/// Doubles with each delivery, from half a second to half a minute, give or take a quarter, so that what failed
/// together does not come back together. A bare nak would be delivered again at once.
pub fn of_delivery(delivered: i64) -> Duration {
    let doublings = u32::try_from(delivered.saturating_sub(1).clamp(0, 10)).unwrap_or(0);
    let delay = SHORTEST.saturating_mul(1 << doublings).min(LONGEST);
    let [random, ..] = Uuid::new_v4().into_bytes();
    delay.mul_f64(0.75 + f64::from(random) / 510.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_grows_and_is_bounded() {
        for (delivered, shortest, longest) in
            [(1, 375, 625), (2, 750, 1250), (7, 22_500, 37_500), (1000, 22_500, 37_500)]
        {
            let delay = of_delivery(delivered);
            let bounds = Duration::from_millis(shortest)..=Duration::from_millis(longest);
            assert!(bounds.contains(&delay), "{delivered}: {delay:?}");
        }
    }
}
