//! Subscribes to `jobs.*.status.>` and keeps the state of all Jobs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use async_nats::Subscriber;
use futures::StreamExt;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::interval;

use crate::event::{Event, Outcome};
use crate::row::Row;
use crate::screen::Screen;

/// Interval at which the elapsed times are redrawn.
const REDRAW: Duration = Duration::from_millis(100);

/// The state of all Jobs, from the received status events.
#[derive(Clone, Default)]
pub(crate) struct Board {
    /// One row for each Job, in the order of their first events.
    pub(crate) rows: Vec<Row>,
    /// Jobs that had an active pod.
    pub(crate) started: BTreeSet<String>,
    pub(crate) outcomes: BTreeMap<String, Outcome>,
    pub(crate) rejections: Vec<Event>,
}

/// The handle of the subscription; dropping it ends the subscription.
pub(crate) struct StatusWatcher {
    pub(crate) board: watch::Receiver<Board>,
    _task: JoinSet<()>,
}

impl StatusWatcher {
    pub(crate) fn start(screen: Screen, mut events: Subscriber) -> Self {
        let (sender, board) = watch::channel(Board::default());
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut redraw = interval(REDRAW);
            loop {
                tokio::select! {
                    message = events.next() => {
                        let Some(message) = message else { return };
                        match serde_json::from_slice::<Event>(&message.payload) {
                            Ok(event) => sender.send_modify(|board| board.apply(event, &screen)),
                            Err(error) => {
                                screen.note(&format!("cannot decode a message on {}: {error}", message.subject));
                            }
                        }
                    }
                    _ = redraw.tick() => {}
                }
                screen.show(&sender.borrow().rows, Instant::now());
            }
        });
        Self { board, _task: task }
    }

    /// Waits until the board satisfies a condition. The deadline of the demo limits the wait.
    pub(crate) async fn until(&self, condition: impl FnMut(&Board) -> bool) {
        // Fails if the subscription has ended; the summary then shows what is missing.
        let _ = self.board.clone().wait_for(condition).await;
    }
}

impl Board {
    fn apply(&mut self, event: Event, screen: &Screen) {
        let Some(job) = event.name.clone().filter(|_| !event.is_rejection()) else {
            screen.rejection(&event);
            self.rejections.push(event);
            return;
        };
        if event.status().is_some_and(|status| status.active > 0) {
            self.started.insert(job.clone());
        }
        if let Some(outcome) = &event.outcome {
            self.outcomes.insert(job.clone(), outcome.clone());
        }
        let now = Instant::now();
        match self.rows.iter_mut().find(|row| row.job == job) {
            Some(row) => row.apply(&event, now),
            None => self.rows.push(Row::new(job, &event, now)),
        }
    }
}
