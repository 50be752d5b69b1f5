//! Waiting for conditions, with deadlines that say what was missing.

use std::fmt::Debug;
use std::future::Future;
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};

/// How long anything may take that has to come: so long that a busy machine makes no test fail, and that a test which
/// waits so long has failed.
pub const TIMEOUT: Duration = Duration::from_secs(480);

/// The pause between two looks: short beside what is waited for, long beside what a look costs.
const PAUSE: Duration = Duration::from_millis(50);

/// What one look at a condition gave: a value once it holds; until then, perhaps, what was seen instead.
pub trait Look {
    /// What holds in the end.
    type Value;
    /// The value, or a text of what was seen.
    fn value(self) -> Result<Self::Value, Option<String>>;
}

impl<T> Look for Option<T> {
    type Value = T;
    fn value(self) -> Result<T, Option<String>> {
        self.ok_or(None)
    }
}

impl<T, E: Debug> Look for Result<T, E> {
    type Value = T;
    fn value(self) -> Result<T, Option<String>> {
        self.map_err(|error| Some(format!("{error:?}")))
    }
}

/// Looks again and again until `look` gives a value: `Some` or `Ok`.
///
/// # Panics
/// At the deadline, naming `what` and the last `Err` seen.
pub async fn until<L, F>(what: &str, deadline: Duration, look: impl FnMut() -> F) -> L::Value
where
    L: Look,
    F: Future<Output = L>,
{
    try_until(what, deadline, look).await.unwrap_or_else(|missing| panic!("{missing}"))
}

/// Like [`until`], with the text of what was missing as an error in place of a panic.
pub async fn try_until<L, F>(
    what: &str,
    deadline: Duration,
    mut look: impl FnMut() -> F,
) -> Result<L::Value, String>
where
    L: Look,
    F: Future<Output = L>,
{
    let end = Instant::now() + deadline;
    let mut seen = None;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        match timeout(left.max(PAUSE), look()).await.map(Look::value) {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(Some(text))) => seen = Some(text),
            Ok(Err(None)) => {}
            Err(_) => seen = Some(format!("no answer to the last look; before: {seen:?}")),
        }
        if Instant::now() >= end {
            let seen = seen.map(|text| format!("; last seen: {text}")).unwrap_or_default();
            return Err(format!("waited {deadline:?} in vain for {what}{seen}"));
        }
        sleep(PAUSE).await;
    }
}
