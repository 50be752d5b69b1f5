//! Whoever watches `jobs.simple.status.>`: prints each event as it comes and keeps what the acts wait for.

use std::collections::{BTreeMap, BTreeSet};

use async_nats::Subscriber;
use futures::StreamExt;
use tokio::sync::watch;

use crate::event::{Event, Outcome, Status};
use crate::screen::Screen;

/// What was heard so far.
#[derive(Clone, Default)]
pub(crate) struct Board {
    /// Jobs of which a pod was active.
    pub(crate) ran: BTreeSet<String>,
    /// The last status of each Job.
    pub(crate) statuses: BTreeMap<String, Status>,
    pub(crate) outcomes: BTreeMap<String, Outcome>,
    pub(crate) rejections: Vec<Event>,
}

/// The listener's end of the acts.
pub(crate) struct Audience {
    pub(crate) board: watch::Receiver<Board>,
}

impl Audience {
    pub(crate) fn listen(screen: Screen, mut events: Subscriber) -> Self {
        let (sender, board) = watch::channel(Board::default());
        screen.heading();
        tokio::spawn(async move {
            while let Some(message) = events.next().await {
                match serde_json::from_slice::<Event>(&message.payload) {
                    Ok(event) => {
                        let before = sender.borrow().statuses.get(event.job()).cloned();
                        screen.event(&event, before.as_ref());
                        sender.send_modify(|board| board.note(event));
                    }
                    Err(error) => screen.note(&format!("no status event on {}: {error}", message.subject)),
                }
            }
        });
        Self { board }
    }

    /// Waits until the board shows something; the caller's deadline ends that.
    pub(crate) async fn until(&self, holds: impl FnMut(&Board) -> bool) {
        // An error: the connection is gone for good, and the summary tells what is missing.
        let _ = self.board.clone().wait_for(holds).await;
    }
}

impl Board {
    fn note(&mut self, event: Event) {
        let job = event.job().to_owned();
        if event.is_rejection() {
            self.rejections.push(event);
            return;
        }
        if event.status.active > 0 {
            self.ran.insert(job.clone());
        }
        self.statuses.insert(job.clone(), event.status);
        if let Some(outcome) = event.outcome {
            self.outcomes.insert(job, outcome);
        }
    }
}
