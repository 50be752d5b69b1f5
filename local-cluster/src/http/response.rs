//! JSON responses, error responses, and the effect of an injected failure on a response.

use std::{convert::Infallible, io};

use axum::{
    body::Body,
    http::{
        HeaderValue, StatusCode,
        header::{CONTENT_TYPE, WARNING},
    },
    response::Response,
};
use futures::stream;
use serde_json::Value;
use tokio::time::sleep;

use super::watch_event::encode;
use crate::{error::ApiError, faults::Failure};

/// The limit of `Warning` headers, so that clients accept the response.
const MAX_WARNINGS: usize = 20;

/// A response with a JSON body.
pub(super) fn json(code: u16, body: &Value) -> Response {
    let mut response = stream_of(Body::from(body.to_string()));
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
}

/// The response for an error.
pub(crate) fn error(error: &ApiError) -> Response {
    let mut response = json(error.code, &error.status());
    if matches!(error.code, 429 | 503) {
        response.headers_mut().insert("retry-after", HeaderValue::from_static("1"));
    }
    response
}

/// The response with a `Warning` header for each warning, up to a limit.
pub(super) fn with_warnings(mut response: Response, warnings: &[String]) -> Response {
    for warning in warnings.iter().take(MAX_WARNINGS) {
        let quoted = warning.replace('\\', "\\\\").replace('"', "\\\"");
        // A name with control characters cannot be part of a header.
        if let Ok(value) = HeaderValue::try_from(format!("299 - \"{quoted}\"")) {
            response.headers_mut().append(WARNING, value);
        }
    }
    response
}

/// A response with code 200 whose body is a stream of JSON.
pub(super) fn stream_of(body: Body) -> Response {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A watch whose only event is an error.
fn watch_error(error: &ApiError) -> Response {
    let event = encode("ERROR", &error.status());
    stream_of(Body::from_stream(stream::once(async { Ok::<_, Infallible>(event) })))
}

/// Performs a call with an injected failure.
///
/// # Errors
/// If the connection must break instead of a response.
pub(crate) async fn apply_failure(
    failure: Option<Failure>,
    perform: impl Future<Output = io::Result<Response>>,
) -> io::Result<Response> {
    match failure {
        None => perform.await,
        Some(Failure::Code(code)) => Ok(error(&ApiError::from_code(code))),
        Some(Failure::Break) => Err(io::ErrorKind::ConnectionReset.into()),
        Some(Failure::WatchError(code)) => Ok(watch_error(&ApiError::from_code(code))),
        Some(Failure::BreakAfter) => {
            perform.await?;
            Err(io::ErrorKind::ConnectionReset.into())
        }
        Some(Failure::DelayAfter(delay)) => {
            let response = perform.await?;
            sleep(delay).await;
            Ok(response)
        }
        Some(Failure::CodeAfter(code)) => {
            let response = perform.await?;
            // A call that fails on its own keeps its own error.
            let succeeded = response.status().is_success();
            Ok(if succeeded { error(&ApiError::from_code(code)) } else { response })
        }
    }
}
