//! A watch that goes on: it resumes from where it ended, lists anew after a 410, and tells whether it works.

use std::{fmt::Debug, pin::pin, time::Duration};

use futures::TryStreamExt;
use kube::{
    Api, Resource,
    api::ListParams,
    runtime::watcher::{self, Event, watcher},
};
use serde::de::DeserializeOwned;
use tokio::{sync::watch, time::sleep};

use crate::retry::backoff;
use crate::{
    kube::{bounded, chain},
    leader::Leadership,
    status::Stopped,
    telemetry::{
        health::Component,
        metrics::{Metrics, Watched},
    },
};

/// How long the API server keeps one watch request. A right that was taken away, and a connection that is dead, are noticed
/// at its end: `/readyz` is to tell the truth within half a minute.
const WATCH_SECONDS: u32 = 20;

/// Who takes what a watch brings.
pub trait EventHandler<K>: Send {
    /// Takes one event. A list is asked for only once [`Event::Init`] is taken.
    fn take(&mut self, event: Event<K>) -> impl Future<Output = Result<(), Stopped>> + Send;
}

/// When everything is to be listed anew.
pub struct RelistTrigger {
    /// Each time that this changes.
    pub changes: watch::Receiver<u64>,
    /// Each time that this replica begins to report.
    pub leadership: Option<Leadership>,
}

impl RelistTrigger {
    async fn is_due(&mut self) {
        let Self { changes, leadership } = self;
        let begins = async {
            match leadership {
                Some(leadership) => loop {
                    leadership.changed().await;
                    if leadership.is_ours() {
                        return;
                    }
                },
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Ok(()) = changes.changed() => {}
            () = begins => {}
            else => std::future::pending().await,
        }
    }
}

/// One watch.
pub struct WatchLoop<K> {
    /// What is watched.
    pub api: Api<K>,
    /// For messages: `Jobs in <namespace>`.
    pub what: String,
    /// Which objects; timeout and page size are set here.
    pub config: watcher::Config,
    /// Ready while the watch works.
    pub health: Component,
    /// Where lists and errors are counted, and as whose.
    pub metrics: (Metrics, Watched),
    /// When everything is listed anew.
    pub again: RelistTrigger,
}

impl<K> WatchLoop<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    /// Watches until the taker says that the service is stopping; the caller drops it to stop.
    pub async fn run(mut self, mut taker: impl EventHandler<K>) {
        let config = self.config.clone().timeout(WATCH_SECONDS).page_size(500);
        let mut delays = backoff();
        loop {
            let mut events = pin!(watcher(self.api.clone(), config.clone()));
            loop {
                let next = tokio::select! {
                    next = events.try_next() => next,
                    () = self.again.is_due() => break,
                };
                match next {
                    Ok(Some(event)) => {
                        if matches!(event, Event::Init) {
                            self.metrics.0.lists(self.metrics.1);
                        }
                        let works = matches!(event, Event::InitDone | Event::Apply(_) | Event::Delete(_));
                        if taker.take(event).await.is_err() {
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
                        self.health.not_ready(format!("watch of {}: {}", self.what, chain(&error)));
                        self.recover(&mut delays).await;
                        if is_expired(&error) {
                            break;
                        }
                    }
                }
            }
        }
    }

    /// After an error of the watch: waits until the objects can be listed again. The watch tells of a change only, so an
    /// idle namespace would look broken for ever.
    async fn recover(&self, delays: &mut impl Iterator<Item = Duration>) {
        for delay in delays {
            sleep(delay).await;
            match bounded(self.api.list(&ListParams::default().limit(1))).await {
                Ok(_) => return self.health.ready(),
                Err(error) => self.health.not_ready(format!("list of {}: {error}", self.what)),
            }
        }
    }
}

/// Whether the place in the history is gone: then all is listed anew.
fn is_gone(error: &watcher::Error) -> bool {
    is_expired(error) || matches!(error, watcher::Error::WatchError(status) if status.code == 410)
}

/// Whether a watch could not be *started* from its resourceVersion: the watcher would try the same one for ever.
fn is_expired(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::WatchStartFailed(kube::Error::Api(status)) if status.code == 410)
}
