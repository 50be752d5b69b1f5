//! The options and the shared state of a cluster.

use std::{sync::Arc, time::Duration};

use crate::{api, faults::Faults, logs::LogRegistry, store::Store};

/// The options of a local cluster.
#[derive(Clone, Debug)]
pub struct Options {
    /// Namespaces to create at start.
    pub namespaces: Vec<String>,
    /// The number of events that each resource keeps for watches. A watch from an older
    /// resourceVersion receives 410.
    pub history: usize,
    /// The interval of bookmarks, for watches that request them.
    pub bookmark_interval: Duration,
    /// The duration of a watch without `timeoutSeconds`.
    pub watch_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            namespaces: vec!["default".to_owned()],
            history: 10_000,
            bookmark_interval: Duration::from_secs(60),
            watch_timeout: Duration::from_secs(1800),
        }
    }
}

/// The shared state of a cluster.
pub(crate) struct State {
    pub(crate) store: Arc<Store>,
    pub(crate) options: Options,
    pub(crate) faults: Faults,
    pub(crate) logs: Arc<LogRegistry>,
}

impl State {
    pub(crate) fn new(options: Options) -> Self {
        let store = Arc::new(Store::new(options.history));
        for namespace in &options.namespaces {
            if let Err(error) = store.write(|state| api::create_namespace(state, namespace)) {
                tracing::warn!(namespace, %error, "namespace not created");
            }
        }
        Self { faults: Faults::new(store.clone()), store, options, logs: Arc::default() }
    }

    /// The same cluster without its faults.
    pub(crate) fn without_faults(&self) -> Self {
        let (store, logs) = (self.store.clone(), self.logs.clone());
        Self { faults: Faults::new(store.clone()), store, options: self.options.clone(), logs }
    }
}
