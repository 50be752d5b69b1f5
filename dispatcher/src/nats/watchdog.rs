//! Whether the streams are there, and still the same ones. A dispatcher with nothing to do would not notice.
//!
//! Of a stream that is gone `/readyz` tells. It is not made again here: what it held is gone too, and somebody has to know.
//! One that was made anew is taken as after a reconnect: what was said is synced with the Jobs.

use std::{collections::HashMap, time::Duration};

use async_nats::jetstream::{self, context::GetStreamErrorKind};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use crate::nats::definitions::{JOB_CANCELS, JOB_REJECTED, JOB_STATUS, JOBS};
use crate::telemetry::health::Component;

/// How often it is looked.
const LOOK: Duration = Duration::from_secs(8);
const DEADLINE: Duration = Duration::from_secs(4);
/// Looks without an answer that are borne.
const BORNE: u32 = 1;

/// See the module.
pub struct Watchdog {
    /// JetStream.
    pub context: jetstream::Context,
    /// Ready while all streams are there.
    pub health: Component,
    /// Told of a stream that was made anew.
    pub reconnects: watch::Sender<u64>,
}

/// Why a stream is not known to be there.
enum Away {
    DeletionCheck(String),
    NoAnswer(String),
}

impl Watchdog {
    /// Looks for ever; the caller drops it to stop.
    pub async fn run(self) {
        let (mut created, mut silent) = (HashMap::new(), 0_u32);
        loop {
            match self.round(&mut created).await {
                Ok(made_anew) => {
                    silent = 0;
                    self.health.ready();
                    if made_anew {
                        self.reconnects.send_modify(|count| *count += 1);
                    }
                }
                Err(Away::DeletionCheck(reason)) => self.health.not_ready(reason),
                Err(Away::NoAnswer(reason)) => {
                    silent = silent.saturating_add(1);
                    if silent > BORNE {
                        self.health.not_ready(reason);
                    }
                }
            }
            sleep(LOOK).await;
        }
    }

    /// Whether a stream was made anew.
    async fn round(&self, created: &mut HashMap<&'static str, i128>) -> Result<bool, Away> {
        let mut made_anew = false;
        for name in [JOBS, JOB_STATUS, JOB_REJECTED, JOB_CANCELS] {
            let now = self.created(name).await?;
            if created.insert(name, now).is_some_and(|before| before != now) {
                tracing::warn!(stream = name, "was made anew");
                made_anew = true;
            }
        }
        Ok(made_anew)
    }

    async fn created(&self, name: &str) -> Result<i128, Away> {
        match timeout(DEADLINE, self.context.get_stream(name)).await {
            Ok(Ok(stream)) => Ok(stream.cached_info().created.unix_timestamp_nanos()),
            Ok(Err(error)) => {
                let reason = format!("stream {name}: {error}");
                match error.kind() {
                    GetStreamErrorKind::JetStream(_) => Err(Away::DeletionCheck(reason)),
                    _ => Err(Away::NoAnswer(reason)),
                }
            }
            Err(_) => Err(Away::NoAnswer(format!("stream {name}: no answer"))),
        }
    }
}
