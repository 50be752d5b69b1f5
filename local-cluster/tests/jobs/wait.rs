//! Bounded waits for objects, files and processes.

use std::{fmt::Debug, time::Duration};

use futures::StreamExt;
use kube::{
    Api,
    runtime::{wait::Condition, watcher::watch_object},
};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

/// The limit of every wait.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(240);

pub(crate) async fn pid_in(file: &std::path::Path) -> u32 {
    poll(|| std::fs::read_to_string(file).ok()?.trim().parse().ok()).await
}

/// Waits until a process has ended.
pub(crate) async fn until_ended(pid: u32) {
    poll(|| (!is_alive(pid)).then_some(())).await;
}

pub(crate) fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // A zombie has ended but is not yet reaped.
    stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with(['Z', 'X']))
}

/// Polls for state that no watch reports: files and processes.
async fn poll<T>(check: impl Fn() -> Option<T>) -> T {
    let search = async {
        loop {
            if let Some(found) = check() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(TIMEOUT, search).await.expect("timed out waiting for a file or process")
}

/// Waits until an object, or its absence, satisfies a condition.
pub(crate) async fn wait<K>(api: &Api<K>, name: &str, condition: impl Condition<K>) -> Option<K>
where
    K: kube::Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let search = async {
        let mut states = watch_object(api.clone(), name).boxed();
        while let Some(state) = states.next().await {
            // The watch recovers from injected faults.
            if let Ok(object) = state
                && condition.matches_object(object.as_ref())
            {
                return object;
            }
        }
        unreachable!("the watch does not end")
    };
    timeout(TIMEOUT, search).await.expect("timed out waiting for a condition")
}
