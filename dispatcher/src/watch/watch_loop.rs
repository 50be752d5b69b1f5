//! A watch that never ends: it resumes where it stopped, lists again after a 410, and reports to
//! its component whether it works.

use std::{fmt::Debug, future::pending, pin::pin, time::Duration};

use futures::StreamExt;
use kube::{Api, Resource, api::ListParams};
use serde::de::DeserializeOwned;
use tokio::{sync::watch, time::sleep};

use crate::{
    kube::call,
    leadership::Leadership,
    retry::backoff,
    status::Stopped,
    telemetry::{
        health::Component,
        metrics::{Metrics, Watched},
    },
    watch::list_watch::{Event, Selection, is_gone, list_watch},
};

/// Handles the events of a watch.
pub(super) trait EventHandler<K>: Send {
    /// Handles one event. The list starts only after [`Event::Init`] is handled.
    fn handle(&mut self, event: Event<K>) -> impl Future<Output = Result<(), Stopped>> + Send;
}

/// When to list everything again.
pub(super) struct RelistTrigger {
    /// Each time that this changes.
    pub changes: watch::Receiver<u64>,
    /// Each time that this replica becomes the leader.
    pub leadership: Option<Leadership>,
}

impl RelistTrigger {
    async fn is_due(&mut self) {
        let Self { changes, leadership } = self;
        let becomes_leader = async {
            let Some(leadership) = leadership else { return pending().await };
            loop {
                leadership.changed().await;
                if leadership.is_ours() {
                    return;
                }
            }
        };
        tokio::select! {
            Ok(()) = changes.changed() => {}
            () = becomes_leader => {}
            else => pending().await,
        }
    }
}

/// One watch.
pub(super) struct WatchLoop<K> {
    /// The watched objects.
    pub api: Api<K>,
    /// The same for messages: `Jobs in <namespace>`.
    pub name: String,
    /// What to list and to watch.
    pub selection: Selection,
    /// Ready while the watch works.
    pub health: Component,
    /// Counts lists and errors, under this label.
    pub metrics: (Metrics, Watched),
    /// When to list everything again.
    pub relist: RelistTrigger,
}

impl<K> WatchLoop<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    /// Watches until the handler returns [`Stopped`]; the caller drops the future to stop.
    pub(super) async fn run(mut self, mut handler: impl EventHandler<K>) {
        let mut delays = backoff();
        loop {
            let mut events = pin!(list_watch(self.api.clone(), self.selection));
            loop {
                let next = tokio::select! {
                    next = events.next() => next,
                    () = self.relist.is_due() => break,
                };
                match next {
                    Some(Ok(event)) => {
                        if matches!(event, Event::Init) {
                            self.metrics.0.lists(self.metrics.1);
                        }
                        let works = matches!(event, Event::InitDone | Event::Apply(_) | Event::Delete(_));
                        if handler.handle(event).await.is_err() {
                            return;
                        }
                        if works {
                            self.health.ready();
                            delays = backoff();
                        }
                    }
                    None => break,
                    Some(Err(error)) => {
                        self.metrics.0.watch_ended(self.metrics.1, is_gone(&error));
                        self.health.not_ready(format!("watch of {}: {error}", self.name));
                        self.recover(&mut delays).await;
                    }
                }
            }
        }
    }

    /// Waits after an error until a list succeeds. The watch itself reports only changes, so it
    /// would leave an idle namespace unready.
    async fn recover(&self, delays: &mut impl Iterator<Item = Duration>) {
        for delay in delays {
            sleep(delay).await;
            match call(self.api.list(&ListParams::default().limit(1))).await {
                Ok(_) => return self.health.ready(),
                Err(error) => self.health.not_ready(format!("list of {}: {error}", self.name)),
            }
        }
    }
}
