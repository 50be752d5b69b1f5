//! The files of the page, and the headers that confine it.

use axum::{
    extract::Path,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

/// The page loads only files and data of the console, and no other page can frame it.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
    require-trusted-types-for 'script'; trusted-types 'none'";

/// The headers of every response of the console.
const HEADERS: [(HeaderName, &str); 6] = [
    (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

const HTML: &str = "text/html; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// The files by name, with their types.
const FILES: [(&str, &str, &str); 9] = [
    ("style.css", "text/css; charset=utf-8", include_str!("page/style.css")),
    ("icon.svg", "image/svg+xml", include_str!("page/icon.svg")),
    ("app.js", JAVASCRIPT, include_str!("page/app.js")),
    ("board.js", JAVASCRIPT, include_str!("page/board.js")),
    ("store.js", JAVASCRIPT, include_str!("page/store.js")),
    ("detail.js", JAVASCRIPT, include_str!("page/detail.js")),
    ("letters.js", JAVASCRIPT, include_str!("page/letters.js")),
    ("actions.js", JAVASCRIPT, include_str!("page/actions.js")),
    ("dom.js", JAVASCRIPT, include_str!("page/dom.js")),
];

/// The page.
pub(super) async fn index() -> Response {
    ([(header::CONTENT_TYPE, HTML)], include_str!("page/index.html")).into_response()
}

/// A file of the page.
pub(super) async fn file(Path(name): Path<String>) -> Response {
    match FILES.into_iter().find(|(file, ..)| *file == name) {
        Some((_, content_type, content)) => ([(header::CONTENT_TYPE, content_type)], content).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// The response with the headers that confine the page.
pub(super) async fn secured(mut response: Response) -> Response {
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
