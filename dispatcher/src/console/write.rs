//! The actions: submits a request and cancels a Job, by the rules of the NATS service.
//!
//! A caller proves itself by the token in the header `Authorization`. The browser never adds that
//! header by itself, so that no other page can act in the name of a user.

use std::sync::Arc;

use async_nats::HeaderMap as NatsHeaders;
use axum::{
    body::Bytes,
    extract::{Query, State},
    http::{HeaderMap, HeaderName, StatusCode, header},
    response::{IntoResponse, Response},
};
use dispatcher_core::{
    console::bearer,
    contract::{
        headers::NATS_MSG_ID,
        names::{Quoted, RequestId},
    },
    template::Template,
};
use subtle::ConstantTimeEq;

use crate::{
    cli::console::current_token,
    console::{answer::Failure, state::Console, templates::TemplateQuery},
    micro::{api::Verb, call::Call},
};

/// The id of a request, so that the page can repeat it.
const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");

/// Submits a request; the answer is that of `jobs.<template>.submit`.
pub(super) async fn submit(
    State(console): State<Console>,
    Query(query): Query<TemplateQuery>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Failure> {
    check_caller(&console, &headers).await?;
    let mut call_headers = NatsHeaders::new();
    if let Some(id) = headers.get(REQUEST_ID) {
        let id = id.to_str().map_err(|_| Failure::bad_request("the header Request-Id is no text"))?;
        let id = RequestId::try_from(id).map_err(|e| Failure::bad_request(e.to_string()))?;
        call_headers.insert(NATS_MSG_ID, id.as_ref());
    }
    let template = query.find(console.backend()?)?;
    call(&console, Verb::Submit, &template, (call_headers, body)).await
}

/// Cancels a Job or a queued request; the answer is that of `jobs.<template>.cancel`.
pub(super) async fn cancel(
    State(console): State<Console>,
    Query(query): Query<TemplateQuery>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Failure> {
    check_caller(&console, &headers).await?;
    let template = query.find(console.backend()?)?;
    call(&console, Verb::Cancel, &template, (NatsHeaders::new(), body)).await
}

async fn call(
    console: &Console,
    verb: Verb,
    template: &Arc<Template>,
    (headers, payload): (NatsHeaders, Bytes),
) -> Result<Response, Failure> {
    tracing::info!(template = %template.name, action = verb.as_str(), "action by the console");
    let call = Call { headers, payload, submitter: None };
    match console.backend()?.handler.call(verb, template, call).await {
        Ok(answer) => Ok(([(header::CONTENT_TYPE, "application/json")], answer).into_response()),
        Err(error) => {
            let status = StatusCode::from_u16(error.code.http_status());
            let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            Err(Failure::new(status, error.code.as_str(), error.message))
        }
    }
}

/// # Errors
/// 401 without the token, and 415 for a content type that a form of another page can send.
async fn check_caller(console: &Console, headers: &HeaderMap) -> Result<(), Failure> {
    let unauthorized = || {
        Failure::new(StatusCode::UNAUTHORIZED, "Unauthorized", "the token of the console is missing or wrong")
    };
    let Some(file) = &console.0.token_file else { return Err(unauthorized()) };
    let token = current_token(file).await.map_err(|error| {
        tracing::warn!(error, file = %file.display(), "cannot read the token of the console");
        Failure::unavailable("the token of the console cannot be read; see the dispatcher's log")
    })?;
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (given, more) = (values.next(), values.next());
    let given = given.filter(|_| more.is_none()).and_then(|value| bearer(value.as_bytes()));
    // Constant time. The length is no secret.
    if !given.is_some_and(|given| bool::from(token.ct_eq(given))) {
        return Err(unauthorized());
    }
    match headers.get(header::CONTENT_TYPE).map(|value| value.to_str().unwrap_or_default()) {
        Some("application/json") => Ok(()),
        found => {
            let found = Quoted::new(found.unwrap_or_default());
            let message = format!("Content-Type {found}: expected application/json");
            Err(Failure::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "BadRequest", message))
        }
    }
}
