//! A watch that never ends: it resumes where it stopped, lists again after a 410, and reports to
//! its component whether it works.

use std::{fmt::Debug, future::pending, pin::pin, time::Duration};

use futures::TryStreamExt;
use kube::{
    Api, Resource,
    api::ListParams,
    runtime::watcher::{self, Event, watcher},
};
use serde::de::DeserializeOwned;
use tokio::{sync::watch, time::sleep};

use crate::{
    kube::{call, chain},
    leader::Leadership,
    retry::backoff,
    status::Stopped,
    telemetry::{
        health::Component,
        metrics::{Metrics, Watched},
    },
};

/// How long the API server serves one watch request. Only its end reveals a revoked permission or a
/// dead connection, and `/readyz` has to report both within half a minute.
const WATCH_SECONDS: u32 = 20;
const PAGE_SIZE: u32 = 500;

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
    /// The selector. The loop sets timeout and page size.
    pub config: watcher::Config,
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
        let config = self.config.clone().timeout(WATCH_SECONDS).page_size(PAGE_SIZE);
        let mut delays = backoff();
        loop {
            let mut events = pin!(watcher(self.api.clone(), config.clone()));
            loop {
                let next = tokio::select! {
                    next = events.try_next() => next,
                    () = self.relist.is_due() => break,
                };
                match next {
                    Ok(Some(event)) => {
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
                    Ok(None) => break,
                    Err(error) => {
                        self.metrics.0.watch_ended(self.metrics.1, is_gone(&error));
                        self.health.not_ready(format!("watch of {}: {}", self.name, chain(&error)));
                        self.recover(&mut delays).await;
                        if cannot_start(&error) {
                            break;
                        }
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

/// Whether the resourceVersion has expired (410), so that everything is listed again.
fn is_gone(error: &watcher::Error) -> bool {
    cannot_start(error) || matches!(error, watcher::Error::WatchError(status) if status.code == 410)
}

/// Whether the API server refused to start the watch with a 410. The watcher would repeat the same
/// resourceVersion forever.
fn cannot_start(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::WatchStartFailed(kube::Error::Api(status)) if status.code == 410)
}
