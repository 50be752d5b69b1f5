//! The tail of a container's log, as far as the template's template allows it.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use futures::{AsyncReadExt, TryFutureExt};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::LogParams};
use tokio::{sync::Semaphore, time::timeout};

use crate::kube::chain;
use dispatcher_core::{contract::text, template::LogTail};

/// How long a tail may take, with the wait for its turn.
const DEADLINE: Duration = Duration::from_secs(5);
/// Logs that are read at once: each call goes through the API server to a kubelet.
const AT_ONCE: usize = 16;
/// What is read of a log at most. The API counts a limit of bytes from the first of the last lines on, so that lines which
/// are longer than the tail need more than its bytes.
const READ: u32 = 64 * 1024;

/// Reads logs.
pub struct Logs {
    pods: Api<Pod>,
    turns: Semaphore,
    warned: AtomicBool,
}

impl Logs {
    /// Reads the logs of these pods.
    pub fn new(pods: Api<Pod>) -> Self {
        Self { pods, turns: Semaphore::new(AT_ONCE), warned: AtomicBool::new(false) }
    }

    /// The tail of the log of a container that has ended; `None` where there is none to be had: it is empty, the pod or its
    /// node is gone, or the right to read it is missing.
    pub async fn tail(&self, pod: &str, container: &str, bounds: LogTail) -> Option<String> {
        let limit = READ.max(bounds.bytes);
        let params = LogParams {
            container: Some(container.to_owned()),
            tail_lines: Some(bounds.lines.into()),
            limit_bytes: Some(limit.into()),
            ..LogParams::default()
        };
        let read = async {
            let _turn = self.turns.acquire().await.map_err(|e| e.to_string())?;
            let log = self.pods.log_stream(pod, &params).map_err(|e| chain(&e)).await?;
            let mut bytes = Vec::new();
            // Not every server keeps to the limit.
            log.take(limit.into()).read_to_end(&mut bytes).await.map_err(|e| e.to_string())?;
            Ok::<_, String>(bytes)
        };
        let failed = match timeout(DEADLINE, read).await {
            Ok(Ok(bytes)) => {
                let max = usize::try_from(bounds.bytes).unwrap_or(usize::MAX);
                return text::tail(&bytes, bounds.lines.into(), max);
            }
            Ok(Err(error)) => error,
            Err(_) => format!("no answer within {} s", DEADLINE.as_secs()),
        };
        // One line: a node that is gone, or a right that is missing, would be a flood.
        if self.warned.swap(true, Ordering::Relaxed) {
            tracing::debug!(pod, container, error = failed, "no log");
        } else {
            tracing::warn!(pod, container, error = failed, "no log; further ones only at the level debug");
        }
        None
    }
}
