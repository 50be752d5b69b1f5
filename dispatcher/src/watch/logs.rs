//! The tail of a container's log, within the bounds of the template.

use std::{
    pin::pin,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use dispatcher_core::{contract::text, status::log_tail::LogTailReader, template::LogTail};
use futures::{AsyncReadExt, TryFutureExt};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::LogParams};
use tokio::sync::Semaphore;

use crate::{kube::chain, retry::with_deadline, telemetry::metrics::Metrics};

/// The deadline of one tail, including its wait for a permit.
const DEADLINE: Duration = Duration::from_secs(5);
/// The largest number of concurrent reads. Each passes the API server and reaches a kubelet.
const MAX_CONCURRENT: usize = 16;
/// The size of the buffer of one read.
const BUFFER_BYTES: usize = 16 * 1024;

/// Reads logs.
pub(super) struct Logs {
    pods: Api<Pod>,
    metrics: Metrics,
    permits: Semaphore,
    warned: AtomicBool,
}

impl Logs {
    /// Reads the logs of these pods.
    pub(super) fn new(pods: Api<Pod>, metrics: Metrics) -> Self {
        Self { pods, metrics, permits: Semaphore::new(MAX_CONCURRENT), warned: AtomicBool::new(false) }
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
        self.metrics.log_read_failed();
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
        let _permit = self.permits.acquire().await.map_err(|e| e.to_string())?;
        let bytes = usize::try_from(bounds.bytes).unwrap_or(usize::MAX);
        let mut reader = LogTailReader::new(bounds.lines.into(), bytes);
        while !self.read_lines(pod, container, &mut reader).await? {
            if !reader.shorten() {
                return Err("the last line of the log is too long to read its end".to_owned());
            }
        }
        Ok(reader.finish())
    }

    /// Reads the last lines to their end. Returns `false` if they are too long.
    async fn read_lines(
        &self,
        pod: &str,
        container: &str,
        reader: &mut LogTailReader,
    ) -> Result<bool, String> {
        let params = LogParams {
            container: Some(container.to_owned()),
            tail_lines: Some(reader.lines().into()),
            ..LogParams::default()
        };
        let log = self.pods.log_stream(pod, &params).map_err(|e| chain(&e)).await?;
        let mut log = pin!(log);
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let count = log.read(&mut buffer).await.map_err(|e| e.to_string())?;
            let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else { return Ok(true) };
            if reader.push(bytes).is_err() {
                return Ok(false);
            }
        }
    }
}
