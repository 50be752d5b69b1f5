//! The routes of the console, and the requests that it refuses.

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    http::{HeaderMap, HeaderName, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Redirect, Response},
    routing::{get, post},
};
use dispatcher_core::console::Caller;

use crate::{
    console::{
        answer::Failure,
        feed::Feed,
        page, read,
        state::{Backend, Console},
        templates, viewer, write,
    },
    micro::call::MAX_CALL,
};

/// The site of the page that sends a request, as the browser sees it.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

impl Console {
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

#[cfg(test)]
mod tests;
