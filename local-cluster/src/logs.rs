//! Where the logs of containers come from: whoever runs them registers here.

use std::{
    io,
    sync::{Arc, PoisonError, RwLock},
};

use bytes::Bytes;
use futures::{future::BoxFuture, stream::BoxStream};

/// The lines of a log, in pieces of any size.
pub type LogStream = BoxStream<'static, io::Result<Bytes>>;

/// What is asked of a log. The pod and the container in its spec are known to exist.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogRequest {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The pod's uid.
    pub uid: String,
    /// The container; the only one of the pod where the caller named none.
    pub container: String,
    /// Whether to go on with what is written from now on, until the container has ended.
    pub follow: bool,
    /// Whether the log of the container's run before this one is meant.
    pub previous: bool,
    /// Only that many lines from the end, and what follows.
    pub tail_lines: Option<u64>,
    /// No more than that many bytes.
    pub limit_bytes: Option<u64>,
    /// Only what was written in the last so many seconds.
    pub since_seconds: Option<u64>,
    /// Whether each line begins with its time (RFC 3339).
    pub timestamps: bool,
}

/// Why there is no log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// The container has not started (`ContainerCreating`, ...), or had no run before this one: answered with 400.
    #[error("{0}")]
    NotReady(String),
    /// What it wrote is not kept any more: answered with 404.
    #[error("{0}")]
    NotFound(String),
}

/// Reads the logs of containers.
pub trait Logs: Send + Sync + 'static {
    /// The log that is asked for.
    fn read(&self, request: LogRequest) -> BoxFuture<'static, Result<LogStream, LogError>>;
}

/// What is registered.
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
