//! Reads `JOB_STATUS` into the board: the end of the stream first, then every new message.
//!
//! An ordered consumer delivers the messages. It pulls a bounded number of them, so a slow console
//! slows down nothing else. After a failure, the feed continues behind the last message.

use std::{convert::Infallible, time::Duration};

use async_nats::jetstream::consumer::{DeliverPolicy, pull::OrderedConfig};
use dispatcher_core::console::MAX_ROWS;
use futures::StreamExt;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::{
    console::{state::Console, templates},
    nats::{connection::Connection, scan::call},
    retry::backoff,
};

/// How many of the newest messages are read at start: the events of the rows of a full board.
const FIRST_MESSAGES: u64 = 4 * MAX_ROWS as u64;
/// How often the viewers get the changes of the board.
const FLUSH_INTERVAL: Duration = Duration::from_millis(250);
/// How often the state of the templates is read while there are viewers.
const TEMPLATES_INTERVAL: Duration = Duration::from_secs(1);
/// How often the feed checks that the stream was not recreated.
const CHECK_INTERVAL: Duration = Duration::from_secs(30);

/// Keeps the board current.
pub(crate) struct Feed {
    pub(super) scans: Connection,
    pub(super) console: Console,
}

impl Feed {
    /// Runs until the caller drops the future. The console needs no readiness: the service is ready
    /// without it, and the page shows the failure.
    pub(crate) async fn run(self) {
        let mut delays = backoff();
        loop {
            let Err(error) = self.follow(|| delays = backoff()).await;
            tracing::debug!(error, "the console does not receive status events");
            self.console.0.live.set_problem(Some(error));
            sleep(delays.next().unwrap_or_default()).await;
        }
    }

    /// Applies messages until something fails.
    async fn follow(&self, mut works: impl FnMut()) -> Result<Infallible, String> {
        let live = &self.console.0.live;
        let mut changes = self.scans.changes();
        changes.mark_unchanged();
        let name = self.scans.names().job_status();
        let label = format!("stream {name}");
        let context = self.scans.jetstream();
        let mut stream = call(&label, context.get_stream(name)).await?;
        let info = stream.cached_info();
        let last = info.state.last_sequence;
        let seen = live.begin(info.created.unix_timestamp_nanos(), last);
        let start_sequence = seen.max(last.saturating_sub(FIRST_MESSAGES)).saturating_add(1);
        let config = OrderedConfig {
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence },
            ..OrderedConfig::default()
        };
        let consumer = call(&label, stream.create_consumer(config)).await?;
        let mut messages = call(&label, consumer.messages()).await?;
        let [mut flush, mut templates, mut check] =
            [FLUSH_INTERVAL, TEMPLATES_INTERVAL, CHECK_INTERVAL].map(interval);
        for ticks in [&mut flush, &mut templates, &mut check] {
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        check.reset();
        if start_sequence > last {
            live.set_problem(None);
        }
        loop {
            tokio::select! {
                message = messages.next() => {
                    let message = message.ok_or_else(|| format!("{label}: the consumer ended"))?;
                    let message = message.map_err(|e| format!("{label}: {e}"))?;
                    let info = message.info().map_err(|e| format!("{label}: {e}"))?;
                    live.apply(info.stream_sequence, &message.payload);
                    if info.stream_sequence >= last {
                        works();
                        live.set_problem(None);
                    }
                    // The messages at start are many: other tasks go between them.
                    tokio::task::consume_budget().await;
                }
                _ = flush.tick() => live.flush(),
                _ = templates.tick() => if live.has_viewers() { templates::send(&self.console) },
                _ = check.tick() => {
                    let info = call(&label, stream.info()).await?;
                    if !live.is_of(info.created.unix_timestamp_nanos(), info.state.last_sequence) {
                        return Err(format!("{label}: it was recreated"));
                    }
                }
                _ = changes.changed() => return Err("the connection to NATS was lost".to_owned()),
            }
        }
    }
}
