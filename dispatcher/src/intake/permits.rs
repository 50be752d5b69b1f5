//! The permits of a pull: how many to wait for.
//!
//! Each pull costs the server as much as several requests. While the queue is long, permits become
//! free one by one.

use std::{sync::Arc, time::Duration};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::retry::with_deadline;

/// How long a pull waits for more permits.
const LINGER: Duration = Duration::from_millis(5);

/// The number of permits for which a pull waits up to [`LINGER`].
pub(super) fn min_batch(concurrency: usize) -> usize {
    concurrency.div_ceil(4)
}

/// Waits for a permit, and takes further free ones up to `limit`. If there are less than `enough`,
/// it waits for them up to [`LINGER`].
pub(super) async fn acquire(
    semaphore: &Arc<Semaphore>,
    limit: usize,
    enough: usize,
) -> Vec<OwnedSemaphorePermit> {
    let next = || semaphore.clone().acquire_owned();
    let mut permits: Vec<_> = next().await.into_iter().collect();
    let take_free = |permits: &mut Vec<_>| {
        while permits.len() < limit
            && let Ok(permit) = semaphore.clone().try_acquire_owned()
        {
            permits.push(permit);
        }
    };
    take_free(&mut permits);
    let more = async {
        while permits.len() < enough.min(limit)
            && let Ok(permit) = next().await
        {
            permits.push(permit);
        }
    };
    // The permits at hand are enough if no more become free.
    let _ = with_deadline(LINGER, more).await;
    take_free(&mut permits);
    permits
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_pull_waits_briefly_for_more_permits_and_never_for_all() {
        let semaphore = Arc::new(Semaphore::new(64));
        // Enough are free: no wait.
        assert_eq!(acquire(&semaphore, 64, 16).now_or_never().map(|all| all.len()), Some(64));
        let mut busy = acquire(&semaphore, 60, 16).await;
        // None becomes free: the four at hand after the longest wait.
        let start = Instant::now();
        let four = acquire(&semaphore, 64, 16).await;
        assert_eq!((four.len(), start.elapsed()), (4, LINGER));
        // Enough become free: no longer wait.
        let release = async {
            busy.truncate(30);
        };
        drop(four);
        let start = Instant::now();
        let (permits, ()) = tokio::join!(acquire(&semaphore, 64, 16), release);
        assert_eq!((permits.len(), start.elapsed()), (34, Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn an_abandoned_wait_for_permits_keeps_none() {
        let semaphore = Arc::new(Semaphore::new(4));
        for (limit, enough) in [(4, 4), (4, 16), (2, 2)] {
            let _busy = semaphore.clone().acquire_many_owned(3).await;
            assert!(acquire(&semaphore, limit, enough).now_or_never().is_none());
            assert_eq!(semaphore.available_permits(), 1);
        }
    }

    #[test]
    fn a_pull_of_one_permit_waits_for_no_other() {
        assert_eq!([1, 4, 5, 64, 1024].map(min_batch), [1, 1, 2, 16, 256]);
    }
}
