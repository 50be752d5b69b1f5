//! Deadlines and retries: the one wrapper for each.

use std::{fmt, time::Duration};

use backon::{BackoffBuilder, ExponentialBuilder};
use futures::TryFutureExt;
use tokio::time::{sleep, timeout};

use crate::telemetry::health::Component;

/// A call took longer than its deadline. It may have taken effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no answer within {} s", .0.as_secs_f32())]
pub(crate) struct DeadlineExceeded(pub(crate) Duration);

/// The output of `call`, if it is there within `deadline`.
pub(crate) fn with_deadline<T>(
    deadline: Duration,
    call: impl Future<Output = T>,
) -> impl Future<Output = Result<T, DeadlineExceeded>> {
    // Not an `async fn`: its future would contain `call` twice.
    timeout(deadline, call).map_err(move |_| DeadlineExceeded(deadline))
}

/// Repeats `operation` until it succeeds, with [`backoff`] between the tries.
///
/// The component is not ready from the first failure until the success, or until the caller drops
/// the future. The operation sets the deadline of each try.
pub(crate) async fn retry_forever<T, E: fmt::Display, F: Future<Output = Result<T, E>>>(
    component: &Component,
    // Not `AsyncFnMut`: the compiler cannot prove that the future of a borrowing one is `Send`.
    mut operation: impl FnMut() -> F,
) -> T {
    let mut guard = component.retry_guard();
    let mut delays = backoff();
    loop {
        match operation().await {
            Ok(value) => {
                guard.succeeded();
                return value;
            }
            Err(error) => guard.failed(error.to_string()),
        }
        sleep(delays.next().unwrap_or(MAX_DELAY)).await;
    }
}

const MIN_DELAY: Duration = Duration::from_millis(100);
const MAX_DELAY: Duration = Duration::from_secs(10);

/// Endless delays between tries: 100 ms doubling to 10 s, with jitter.
pub(crate) fn backoff() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::default()
        .with_min_delay(MIN_DELAY)
        .with_max_delay(MAX_DELAY)
        .with_jitter()
        .without_max_times()
        .build()
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use super::*;
    use crate::telemetry::health::Health;

    #[tokio::test(start_paused = true)]
    async fn a_failing_operation_is_repeated_and_its_component_is_not_ready_meanwhile() {
        let health = Health::default();
        let component = health.component("reads");
        component.ready();
        let mut tries = 0;
        let value = retry_forever(&component, || {
            tries += 1;
            let result = if tries < 4 { Err(format!("try {tries}")) } else { Ok(tries) };
            if tries == 4 {
                assert_eq!(health.not_ready(), ["reads: try 3"]);
            }
            ready(result)
        })
        .await;
        assert_eq!(value, 4);
        assert!(health.not_ready().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_without_an_answer_ends_at_its_deadline() {
        let silent = std::future::pending::<()>();
        let error = with_deadline(Duration::from_secs(5), silent).await.unwrap_err();
        assert_eq!(error.to_string(), "no answer within 5 s");
    }
}
