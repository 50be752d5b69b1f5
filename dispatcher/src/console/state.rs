//! The state that the routes of the console share: settings, board, bounds, and connections.

use std::{
    path::PathBuf,
    sync::{Arc, OnceLock},
};

use axum::http::StatusCode;
use dispatcher_core::{console::Guard, template::Template};
use tokio::sync::Semaphore;

use crate::{
    cli::{ConsoleMode, ConsoleSettings, StartError},
    concurrency::ConcurrencyLimiter,
    console::{answer::Failure, live::Live},
    micro::handler::Handler,
    nats::connection::Connection,
    telemetry::{health::Health, metrics::Metrics},
};

/// How many viewers are connected.
pub(super) const MAX_VIEWERS: usize = 64;
/// How many histories and lists of dead letters are in memory: each has up to some MiB.
const MAX_READS: usize = 4;
/// Reads the templates that are served now.
pub(crate) type TemplateSource = Arc<dyn Fn() -> Vec<Arc<Template>> + Send + Sync>;

/// The console. Clones share it.
#[derive(Clone)]
pub(crate) struct Console(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) mode: ConsoleMode,
    pub(super) token_file: Option<PathBuf>,
    pub(super) guard: Guard,
    pub(super) live: Arc<Live>,
    pub(super) viewers: Arc<Semaphore>,
    pub(super) reads: Semaphore,
    /// Set once the dispatcher has started.
    pub(super) backend: OnceLock<Backend>,
}

/// What the console reads and calls.
pub(crate) struct Backend {
    pub(crate) templates: TemplateSource,
    /// The namespace of the Jobs.
    pub(crate) namespace: String,
    pub(crate) limiter: ConcurrencyLimiter,
    pub(crate) metrics: Metrics,
    pub(crate) health: Health,
    /// Reads the streams.
    pub(crate) scans: Connection,
    pub(crate) handler: Arc<Handler>,
}

impl Console {
    /// The console of the settings; `None` if it is off.
    ///
    /// # Errors
    /// [`StartError`] if the token is required and cannot be used.
    pub(crate) fn new(settings: &ConsoleSettings) -> Result<Option<Self>, StartError> {
        let token_file = settings.writer()?;
        let inner = Inner {
            mode: settings.mode,
            token_file,
            guard: Guard::new(&settings.hosts),
            live: Arc::default(),
            viewers: Arc::new(Semaphore::new(MAX_VIEWERS)),
            reads: Semaphore::new(MAX_READS),
            backend: OnceLock::new(),
        };
        Ok((settings.mode != ConsoleMode::Off).then(|| Self(Arc::new(inner))))
    }

    /// # Errors
    /// 503 while the dispatcher starts.
    pub(super) fn backend(&self) -> Result<&Backend, Failure> {
        let starting =
            || Failure::new(StatusCode::SERVICE_UNAVAILABLE, "Starting", "the dispatcher is starting");
        self.0.backend.get().ok_or_else(starting)
    }
}
