//! Which `JOBS` it is: part of every derived request id, and another one where somebody makes the stream anew.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use async_nats::jetstream::{self, stream::Info};
use tokio::time::timeout;

use crate::nats::definitions::JOBS;

const DEADLINE: Duration = Duration::from_secs(5);

/// The stream's name and creation time, shared by all who derive ids.
#[derive(Debug, Clone)]
pub struct StreamIncarnation(Arc<RwLock<Arc<str>>>);

impl StreamIncarnation {
    /// Of the stream that is there at the start.
    pub fn of(info: &Info) -> Self {
        Self(Arc::new(RwLock::new(name(info))))
    }

    /// What goes into an id.
    pub fn name(&self) -> Arc<str> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks again. Before anything is pulled of a stream that was away.
    ///
    /// # Errors
    /// Where the stream is not there, or does not answer.
    pub async fn refresh(&self, context: &jetstream::Context) -> Result<(), String> {
        let stream = timeout(DEADLINE, context.get_stream(JOBS)).await;
        let stream = stream.map_err(|_| format!("stream {JOBS}: no answer"))?;
        let now = name(stream.map_err(|e| format!("stream {JOBS}: {e}"))?.cached_info());
        if self.name() != now {
            tracing::warn!(stream = JOBS, "was made anew");
            *self.0.write().unwrap_or_else(PoisonError::into_inner) = now;
        }
        Ok(())
    }
}

fn name(info: &Info) -> Arc<str> {
    format!("{JOBS} {}", info.created.unix_timestamp_nanos()).into()
}
