//! Polls conditions until a deadline, with errors that describe the last state.

use std::fmt::Debug;
use std::future::Future;
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};

/// The time limit for everything that must happen: so long that a busy machine fails no test.
pub const TIMEOUT: Duration = Duration::from_secs(480);

/// The interval between two polls.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The result of one poll: a value once the condition holds, perhaps the current state until then.
pub trait PollResult {
    /// The final value.
    type Value;
    /// The value, or the current state as text.
    fn value(self) -> Result<Self::Value, Option<String>>;
}

impl<T> PollResult for Option<T> {
    type Value = T;
    fn value(self) -> Result<T, Option<String>> {
        self.ok_or(None)
    }
}

impl<T, E: Debug> PollResult for Result<T, E> {
    type Value = T;
    fn value(self) -> Result<T, Option<String>> {
        self.map_err(|error| Some(format!("{error:?}")))
    }
}

/// Polls until `poll` returns `Some` or `Ok`.
///
/// # Panics
/// At the deadline; names `what` and the last `Err`.
pub async fn until<L, F>(what: &str, deadline: Duration, poll: impl FnMut() -> F) -> L::Value
where
    L: PollResult,
    F: Future<Output = L>,
{
    try_until(what, deadline, poll).await.unwrap_or_else(|missing| panic!("{missing}"))
}

/// Like [`until`], with an error instead of a panic.
pub async fn try_until<L, F>(
    what: &str,
    deadline: Duration,
    mut poll: impl FnMut() -> F,
) -> Result<L::Value, String>
where
    L: PollResult,
    F: Future<Output = L>,
{
    let end = Instant::now() + deadline;
    let mut seen = None;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        match timeout(left.max(POLL_INTERVAL), poll()).await.map(PollResult::value) {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(Some(text))) => seen = Some(text),
            Ok(Err(None)) => {}
            Err(_) => seen = Some(format!("the last poll timed out; before: {seen:?}")),
        }
        if Instant::now() >= end {
            let seen = seen.map(|text| format!("; last state: {text}")).unwrap_or_default();
            return Err(format!("timed out after {deadline:?} waiting for {what}{seen}"));
        }
        sleep(POLL_INTERVAL).await;
    }
}
