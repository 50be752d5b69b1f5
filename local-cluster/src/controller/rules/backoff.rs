//! The back-off before a failed pod is replaced: 10 s after the first failure, doubled each time.

use k8s_openapi::{
    api::core::v1::Pod,
    jiff::{SignedDuration, Timestamp},
};

use crate::controller::pods;

/// The wait after the first failure.
const BASE_WAIT: SignedDuration = SignedDuration::from_secs(10);
/// The upper limit. (Kubernetes' documentation states six minutes, but its controller uses ten.)
const MAX_WAIT: SignedDuration = SignedDuration::from_mins(10);

/// The earliest time for a new pod; `None` if no pod has failed since the last success.
///
/// Kubernetes counts failures in memory. This function derives them from the existing pods.
pub(super) fn earliest(pods: &[Pod], scale: f64, replaces_failed_only: bool) -> Option<Timestamp> {
    let ends = |pod: &&Pod| pods::ended_at(pod);
    let last_success = pods.iter().filter(|pod| pods::has_succeeded(pod)).filter_map(|pod| ends(&pod)).max();
    let failures = pods
        .iter()
        .filter(|pod| counts_as_failure(pod, replaces_failed_only))
        .filter_map(|pod| ends(&pod))
        .filter(|end| last_success.is_none_or(|success| *end > success));
    let (count, last) = failures.fold((0, None), |(count, last), end| (count + 1, last.max(Some(end))));
    last.map(|last| last + wait(count, scale))
}

/// Whether a pod counts as failed: it failed or was deleted, but not by the Job controller.
fn counts_as_failure(pod: &Pod, replaces_failed_only: bool) -> bool {
    match pods::is_deleting(pod) {
        false => pods::has_failed(pod),
        true => pods::is_tracked(pod) && !pods::has_succeeded(pod) && !replaces_failed_only,
    }
}

/// The back-off after `failures` consecutive failures.
fn wait(failures: u32, scale: f64) -> SignedDuration {
    let Some(doublings) = failures.checked_sub(1) else {
        return SignedDuration::ZERO;
    };
    let unscaled = 2_i32.checked_pow(doublings).and_then(|factor| BASE_WAIT.checked_mul(factor));
    let unscaled = unscaled.unwrap_or(MAX_WAIT).min(MAX_WAIT);
    SignedDuration::try_from_secs_f64(unscaled.as_secs_f64() * scale).unwrap_or(unscaled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_up_to_ten_minutes() {
        let seconds: Vec<i64> = (0..9).map(|failures| wait(failures, 1.0).as_secs()).collect();
        assert_eq!(seconds, [0, 10, 20, 40, 80, 160, 320, 600, 600]);
        assert_eq!(wait(u32::MAX, 1.0), MAX_WAIT);
    }

    #[test]
    fn scale_shortens_the_backoff() {
        assert_eq!(wait(2, 0.01), SignedDuration::from_millis(200));
        assert_eq!(wait(2, 0.0), SignedDuration::ZERO);
        assert_eq!(wait(1, f64::NAN), BASE_WAIT);
    }
}
