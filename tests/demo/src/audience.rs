//! Whoever watches `jobs.*.status.>`: keeps the board of the Jobs, which the screen shows and the acts wait for.

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

/// How often the times of the Jobs are drawn anew.
const TICK: Duration = Duration::from_millis(100);

/// What was heard so far.
#[derive(Clone, Default)]
pub(crate) struct Board {
    /// A line for each Job, in the order of their first events.
    pub(crate) rows: Vec<Row>,
    /// Jobs of which a pod was active.
    pub(crate) ran: BTreeSet<String>,
    pub(crate) outcomes: BTreeMap<String, Outcome>,
    pub(crate) rejections: Vec<Event>,
}

/// The listener's end of the acts.
pub(crate) struct Audience {
    pub(crate) board: watch::Receiver<Board>,
    _listening: JoinSet<()>,
}

impl Audience {
    pub(crate) fn listen(screen: Screen, mut events: Subscriber) -> Self {
        let (sender, board) = watch::channel(Board::default());
        let mut listening = JoinSet::new();
        listening.spawn(async move {
            let mut tick = interval(TICK);
            loop {
                tokio::select! {
                    message = events.next() => {
                        let Some(message) = message else { return };
                        match serde_json::from_slice::<Event>(&message.payload) {
                            Ok(event) => sender.send_modify(|board| board.note(event, &screen)),
                            Err(error) => screen.note(&format!("no event on {}: {error}", message.subject)),
                        }
                    }
                    _ = tick.tick() => {}
                }
                screen.show(&sender.borrow().rows, Instant::now());
            }
        });
        Self { board, _listening: listening }
    }

    /// Waits until the board shows something; the caller's deadline ends that.
    pub(crate) async fn until(&self, holds: impl FnMut(&Board) -> bool) {
        // An error: the connection is gone for good, and the summary tells what is missing.
        let _ = self.board.clone().wait_for(holds).await;
    }
}

impl Board {
    fn note(&mut self, event: Event, screen: &Screen) {
        let Some(job) = event.name.clone().filter(|_| !event.is_rejection()) else {
            screen.rejection(&event);
            self.rejections.push(event);
            return;
        };
        if event.status().is_some_and(|status| status.active > 0) {
            self.ran.insert(job.clone());
        }
        if let Some(outcome) = &event.outcome {
            self.outcomes.insert(job.clone(), outcome.clone());
        }
        let now = Instant::now();
        match self.rows.iter_mut().find(|row| row.job == job) {
            Some(row) => row.take(&event, now),
            None => self.rows.push(Row::new(job, &event, now)),
        }
    }
}
