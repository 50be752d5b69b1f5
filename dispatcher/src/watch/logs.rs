//! The tail of a container's log, within the bounds of the template.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use dispatcher_core::{contract::text, template::LogTail};
use futures::{AsyncReadExt, TryFutureExt};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::LogParams};
use tokio::sync::Semaphore;

use crate::{kube::chain, retry::with_deadline};

/// The deadline of one tail, including its wait for a permit.
const DEADLINE: Duration = Duration::from_secs(5);
/// The largest number of concurrent reads. Each passes the API server and reaches a kubelet.
const MAX_CONCURRENT: usize = 16;
/// The least number of bytes to ask for. The API counts its byte limit from the start of the
/// selected lines, so that long lines need more bytes than the tail itself.
const MIN_READ_BYTES: u32 = 64 * 1024;

/// Reads logs.
pub(super) struct Logs {
    pods: Api<Pod>,
    permits: Semaphore,
    warned: AtomicBool,
}

impl Logs {
    /// Reads the logs of these pods.
    pub(super) fn new(pods: Api<Pod>) -> Self {
        Self { pods, permits: Semaphore::new(MAX_CONCURRENT), warned: AtomicBool::new(false) }
    }

    /// The tail of the log of a terminated container. `None` if the log is empty, the pod or its
    /// node is gone, or the permission to read it is missing.
    pub(super) async fn tail(&self, pod: &str, container: &str, bounds: LogTail) -> Option<String> {
        let error = match with_deadline(DEADLINE, self.read(pod, container, bounds)).await {
            Ok(Ok(bytes)) => {
                let max = usize::try_from(bounds.bytes).unwrap_or(usize::MAX);
                return text::tail(&bytes, bounds.lines.into(), max);
            }
            Ok(Err(error)) => error,
            Err(error) => error.to_string(),
        };
        // A lost node or a missing permission would flood the log with warnings.
        if self.warned.swap(true, Ordering::Relaxed) {
            tracing::debug!(pod, container, error, "cannot read pod log");
        } else {
            tracing::warn!(
                pod,
                container,
                error,
                "cannot read pod log; further failures are logged at debug"
            );
        }
        None
    }

    async fn read(&self, pod: &str, container: &str, bounds: LogTail) -> Result<Vec<u8>, String> {
        let limit = MIN_READ_BYTES.max(bounds.bytes);
        let params = LogParams {
            container: Some(container.to_owned()),
            tail_lines: Some(bounds.lines.into()),
            limit_bytes: Some(limit.into()),
            ..LogParams::default()
        };
        let _permit = self.permits.acquire().await.map_err(|e| e.to_string())?;
        let log = self.pods.log_stream(pod, &params).map_err(|e| chain(&e)).await?;
        let mut bytes = Vec::new();
        // Some servers ignore the limit.
        log.take(limit.into()).read_to_end(&mut bytes).await.map_err(|e| e.to_string())?;
        Ok(bytes)
    }
}
