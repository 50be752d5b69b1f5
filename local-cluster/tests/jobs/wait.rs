//! Waiting for what is to come to be, never longer than patience lasts.

use std::{fmt::Debug, time::Duration};

use futures::StreamExt;
use kube::{
    Api,
    runtime::{wait::Condition, watcher::watch_object},
};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

/// No wait of a test is longer.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(240);

pub(crate) async fn pid_in(file: &std::path::Path) -> u32 {
    eventually(|| std::fs::read_to_string(file).ok()?.trim().parse().ok()).await
}

/// Waits until a process is gone.
pub(crate) async fn until_ended(pid: u32) {
    eventually(|| (!is_alive(pid)).then_some(())).await;
}

pub(crate) fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // A zombie has ended: only nobody has asked yet.
    stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with(['Z', 'X']))
}

/// For what no watch tells of: files and processes.
async fn eventually<T>(look: impl Fn() -> Option<T>) -> T {
    let search = async {
        loop {
            if let Some(found) = look() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(TIMEOUT, search).await.expect("it did not come to be")
}

/// The object, or its absence, once it is as wanted.
pub(crate) async fn wait<K>(api: &Api<K>, name: &str, wanted: impl Condition<K>) -> Option<K>
where
    K: kube::Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let search = async {
        let mut states = watch_object(api.clone(), name).boxed();
        while let Some(state) = states.next().await {
            // Faults meet this watch too, and it goes on.
            if let Ok(object) = state
                && wanted.matches_object(object.as_ref())
            {
                return object;
            }
        }
        unreachable!("a watch of an object does not end")
    };
    timeout(TIMEOUT, search).await.expect("it did not come to be as wanted")
}
