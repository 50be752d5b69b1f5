//! The source of container logs, which the component that runs the containers registers.

use std::{
    io,
    sync::{Arc, PoisonError, RwLock},
};

use bytes::Bytes;
use futures::{future::BoxFuture, stream::BoxStream};

/// The content of a log, in chunks of any size.
pub type LogStream = BoxStream<'static, io::Result<Bytes>>;

/// A request for a log. The pod and its container exist.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogRequest {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The pod's uid.
    pub uid: String,
    /// The container name; the pod's only container if the caller named none.
    pub container: String,
    /// Whether to stream new lines until the container ends.
    pub follow: bool,
    /// Whether to read the log of the container's previous run.
    pub previous: bool,
    /// The number of most recent lines to start with.
    pub tail_lines: Option<u64>,
    /// The limit in bytes.
    pub limit_bytes: Option<u64>,
    /// The maximum age of the lines in seconds.
    pub since_seconds: Option<u64>,
    /// Whether each line starts with its timestamp (RFC 3339).
    pub timestamps: bool,
}

/// Why a log is unavailable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// The container has not started, or has no previous run. The API answers with 400.
    #[error("{0}")]
    NotReady(String),
    /// The log no longer exists. The API answers with 404.
    #[error("{0}")]
    NotFound(String),
}

/// Reads the logs of containers.
pub trait Logs: Send + Sync + 'static {
    /// Returns the requested log.
    fn read(&self, request: LogRequest) -> BoxFuture<'static, Result<LogStream, LogError>>;
}

/// Holds the registered source.
#[derive(Default)]
pub(crate) struct LogRegistry(RwLock<Option<Arc<dyn Logs>>>);

impl LogRegistry {
    pub(crate) fn register(&self, logs: Arc<dyn Logs>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(logs);
    }

    pub(crate) fn get(&self) -> Option<Arc<dyn Logs>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
