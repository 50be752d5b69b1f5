//! Checks that the streams exist and are still the same ones: an idle dispatcher would not notice.
//!
//! A missing stream makes the component not ready. It is not recreated: its messages are lost, and
//! the operator has to know. A stream that was recreated counts as a reconnect, so that the leader
//! resyncs.

use std::{collections::HashMap, time::Duration};

use async_nats::jetstream::{self, context::GetStreamErrorKind};
use tokio::{sync::watch, time::sleep};

use crate::{
    nats::definitions::{JOB_CANCELS, JOB_REJECTED, JOB_STATUS, JOBS},
    retry::with_deadline,
    telemetry::health::Component,
};

const INTERVAL: Duration = Duration::from_secs(8);
const DEADLINE: Duration = Duration::from_secs(4);
/// Unanswered checks in a row that leave the component ready.
const MAX_UNANSWERED: u32 = 1;

/// Checks the streams.
pub(crate) struct Watchdog {
    /// `JetStream`.
    pub context: jetstream::Context,
    /// Ready while all streams exist.
    pub health: Component,
    /// Counts reconnects, and streams that were recreated.
    pub reconnects: watch::Sender<u64>,
}

/// Why a check failed.
enum CheckError {
    /// `JetStream` answered with an error.
    Missing(String),
    NoAnswer(String),
}

impl Watchdog {
    /// Checks forever; the caller drops the future to stop.
    pub(crate) async fn run(self) {
        let (mut created, mut unanswered) = (HashMap::new(), 0_u32);
        loop {
            match self.check(&mut created).await {
                Ok(recreated) => {
                    unanswered = 0;
                    self.health.ready();
                    if recreated {
                        self.reconnects.send_modify(|count| *count += 1);
                    }
                }
                Err(CheckError::Missing(reason)) => self.health.not_ready(reason),
                Err(CheckError::NoAnswer(reason)) => {
                    unanswered = unanswered.saturating_add(1);
                    if unanswered > MAX_UNANSWERED {
                        self.health.not_ready(reason);
                    }
                }
            }
            sleep(INTERVAL).await;
        }
    }

    /// Whether a stream was recreated since the last check.
    async fn check(&self, created: &mut HashMap<&'static str, i128>) -> Result<bool, CheckError> {
        let mut recreated = false;
        for name in [JOBS, JOB_STATUS, JOB_REJECTED, JOB_CANCELS] {
            let now = self.creation_time(name).await?;
            if created.insert(name, now).is_some_and(|before| before != now) {
                tracing::warn!(stream = name, "stream was recreated");
                recreated = true;
            }
        }
        Ok(recreated)
    }

    async fn creation_time(&self, name: &str) -> Result<i128, CheckError> {
        match with_deadline(DEADLINE, self.context.get_stream(name)).await {
            Ok(Ok(stream)) => Ok(stream.cached_info().created.unix_timestamp_nanos()),
            Ok(Err(error)) => {
                let reason = format!("stream {name}: {error}");
                match error.kind() {
                    GetStreamErrorKind::JetStream(_) => Err(CheckError::Missing(reason)),
                    _ => Err(CheckError::NoAnswer(reason)),
                }
            }
            Err(error) => Err(CheckError::NoAnswer(format!("stream {name}: {error}"))),
        }
    }
}
