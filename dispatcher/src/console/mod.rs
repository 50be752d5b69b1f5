//! The console: a web page on the admin port, with a live board of the Jobs.
//!
//! ```text
//! JOB_STATUS ─▶ feed ─▶ live (board) ─▶ viewer (server-sent events) ─▶ page
//! JOB_STATUS, JOB_REJECTED ─▶ read ─▶ page        page ─▶ write ─▶ micro (submit, cancel)
//! ```
//! It reads what every subscriber can read, and publishes no status event.

mod feed;
mod live;
mod page;
mod read;
mod templates;
mod viewer;
mod write;

use std::{
    path::PathBuf,
    sync::{Arc, OnceLock},
};

use axum::{
    Router,
    body::Body,
    extract::{DefaultBodyLimit, Request, State},
    http::{HeaderMap, HeaderName, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Redirect, Response},
    routing::{get, post},
};
use dispatcher_core::console::{Caller, Guard};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

pub(crate) use self::{feed::Feed, templates::TemplateSource};
use crate::{
    cli::{ConsoleMode, ConsoleSettings, StartError},
    concurrency::ConcurrencyLimiter,
    console::live::Live,
    micro::{call::MAX_CALL, handler::Handler},
    nats::connection::Connection,
    telemetry::{health::Health, metrics::Metrics},
};

/// How many viewers are connected.
const MAX_VIEWERS: usize = 64;
/// How many histories and lists of dead letters are in memory: each has up to some MiB.
const MAX_READS: usize = 4;
/// The site of the page that sends a request, as the browser sees it.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The console. Clones share it.
#[derive(Clone)]
pub(crate) struct Console(Arc<Inner>);

struct Inner {
    mode: ConsoleMode,
    token_file: Option<PathBuf>,
    guard: Guard,
    live: Arc<Live>,
    viewers: Arc<Semaphore>,
    reads: Semaphore,
    /// Set once the dispatcher has started.
    backend: OnceLock<Backend>,
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

    /// The dispatcher has started. Returns the task that keeps the board current.
    pub(crate) fn start(&self, backend: Backend) -> Feed {
        let feed = Feed { scans: backend.scans.clone(), console: self.clone() };
        if self.0.backend.set(backend).is_err() {
            tracing::error!("the console was started twice");
        }
        feed
    }

    /// The routes. The routes of actions exist only if the console can write.
    pub(crate) fn router(&self) -> Router {
        let mut api = Router::new()
            .route("/live", get(viewer::live))
            .route("/history", get(read::history))
            .route("/dead-letters", get(read::dead_letters))
            .route("/schema", get(templates::schema));
        if self.0.token_file.is_some() {
            api = api.route("/submit", post(write::submit)).route("/cancel", post(write::cancel));
        }
        let api = api.layer(middleware::from_fn_with_state(self.clone(), check_page));
        Router::new()
            .route("/console", get(async || Redirect::permanent("/console/")))
            .route("/console/", get(page::index))
            .route("/console/{file}", get(page::file))
            .nest("/console/api", api)
            .layer(DefaultBodyLimit::max(MAX_CALL))
            .layer(middleware::from_fn_with_state(self.clone(), check_host))
            .layer(middleware::map_response(page::secured))
            .with_state(self.clone())
    }

    /// # Errors
    /// 503 while the dispatcher starts.
    fn backend(&self) -> Result<&Backend, Failure> {
        let starting =
            || Failure::new(StatusCode::SERVICE_UNAVAILABLE, "Starting", "the dispatcher is starting");
        self.0.backend.get().ok_or_else(starting)
    }
}

/// Refuses requests to another host, on every path.
async fn check_host(State(console): State<Console>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    let host = only(headers, &header::HOST).and_then(|host| match request.uri().authority() {
        Some(authority) if host.is_none_or(|host| host != authority.as_str()) => Err(()),
        _ => Ok(host),
    });
    let checked = match host {
        Ok(host) => console.0.guard.check(Caller { host, ..Caller::default() }),
        Err(()) => Err("the request has several hosts".to_owned()),
    };
    match checked {
        Ok(()) => next.run(request).await,
        Err(message) => Failure::new(StatusCode::FORBIDDEN, "Forbidden", message).into_response(),
    }
}

/// Refuses requests of pages of other origins. A link of another page may open the console itself.
async fn check_page(State(console): State<Console>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    let caller = || {
        Ok(Caller {
            host: only(headers, &header::HOST)?,
            origin: only(headers, &header::ORIGIN)?,
            fetch_site: only(headers, &FETCH_SITE)?,
        })
    };
    let checked = match caller() {
        Ok(caller) => console.0.guard.check(caller),
        Err(()) => Err("a header that names the page occurs more than once".to_owned()),
    };
    match checked {
        Ok(()) => next.run(request).await,
        Err(message) => Failure::new(StatusCode::FORBIDDEN, "Forbidden", message).into_response(),
    }
}

/// The only value of a header, if there is one. An error if there are several, or if it is no text.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, ()> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(|_| ()),
        (Some(_), Some(_)) => Err(()),
    }
}

/// An error answer of the API: a code for programs and a message for people.
#[derive(Debug)]
struct Failure {
    status: StatusCode,
    code: String,
    message: String,
}

impl Failure {
    fn new(status: StatusCode, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { status, code: code.into(), message: message.into() }
    }

    /// 503: NATS does not answer.
    fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "NotReady", message)
    }

    fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let Self { status, code, message } = self;
        let mut response = json_response(status, &json!({"error": code, "message": message}));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, 5.into());
        }
        response
    }
}

fn json_response(status: StatusCode, body: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], Body::from(body.to_string())).into_response()
}

#[cfg(test)]
mod tests;
