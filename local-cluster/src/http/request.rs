//! A parsed API request: call, query parameters, response format and body.

use std::{collections::HashMap, time::Duration};

use axum::{
    body::{Body, to_bytes},
    extract::Query,
    http::{header::CONTENT_TYPE, request::Parts},
};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::table_view::View;
use crate::{
    api::{DeleteOptions, ListOptions},
    call::{Call, is_watch},
    error::{ApiError, ApiResult},
    object::set,
    patch::PatchType,
    selector::Selector,
};

/// The limit of the Kubernetes API server.
const BODY_LIMIT: usize = 3 << 20;
/// The time limit for receiving a request body.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// A parsed request.
pub(super) struct ApiRequest {
    pub(super) call: Call,
    pub(super) view: View,
    /// The media type of the body, without parameters.
    pub(super) content_type: String,
    pub(super) body: Value,
    query: HashMap<String, String>,
}

impl ApiRequest {
    /// Reads the body and parses the request.
    ///
    /// # Errors
    /// 400, 404, 405, 408, 413 or 415.
    pub(super) async fn read(parts: Parts, body: Body) -> ApiResult<Self> {
        let query = Query::<HashMap<String, String>>::try_from_uri(&parts.uri)
            .map_err(|error| ApiError::bad_request(error.to_string()))?
            .0;
        let call = Call::parse(&parts.method, parts.uri.path(), is_watch(&query))?;
        let bytes = timeout(BODY_TIMEOUT, to_bytes(body, BODY_LIMIT))
            .await
            .map_err(|_| ApiError::from_code(408))?
            .map_err(|_| ApiError::body_too_large())?;
        let content_type =
            parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let content_type = essence(content_type);
        // Kubernetes reads a body without a type as JSON. A page can send one without a preflight.
        if !bytes.is_empty() && !is_supported(call.verb, &content_type) {
            return Err(ApiError::unsupported_media_type(&content_type));
        }
        let body = match bytes.is_empty() {
            true => Value::Null,
            false => serde_json::from_slice(&bytes).map_err(|error| {
                ApiError::bad_request(format!("couldn't get version/kind; json parse error: {error}"))
            })?,
        };
        let view = View::from_headers(&parts.headers, query.get("includeObject").map(String::as_str));
        Ok(Self { call, view, content_type, body, query })
    }

    /// A query parameter; empty if absent.
    pub(super) fn parameter(&self, name: &str) -> &str {
        self.query.get(name).map_or("", String::as_str)
    }

    /// Whether a query parameter is true.
    pub(super) fn is_set(&self, name: &str) -> bool {
        ["true", "1"].contains(&self.parameter(name))
    }

    pub(super) fn is_dry_run(&self) -> bool {
        self.parameter("dryRun") == "All"
    }

    /// The label and field selectors.
    pub(super) fn selector(&self) -> ApiResult<Selector> {
        let (labels, fields) = (self.parameter("labelSelector"), self.parameter("fieldSelector"));
        let mut fields = fields.to_owned();
        if self.call.verb == "watch" && !self.call.name.is_empty() {
            fields = format!("metadata.name={},{fields}", self.call.name);
        }
        Selector::parse(self.call.resource, labels, &fields)
    }

    pub(super) fn list_options(&self) -> ApiResult<ListOptions> {
        Ok(ListOptions {
            selector: self.selector()?,
            limit: self.parameter("limit").parse().unwrap_or(0),
            token: self.parameter("continue").to_owned(),
            version: self.parameter("resourceVersion").to_owned(),
            version_match: self.parameter("resourceVersionMatch").to_owned(),
        })
    }

    pub(super) fn delete_options(&self) -> ApiResult<DeleteOptions> {
        let mut options = if self.body.is_object() { self.body.clone() } else { json!({}) };
        if !self.parameter("propagationPolicy").is_empty() {
            set(&mut options, &[], "propagationPolicy", self.parameter("propagationPolicy"));
        }
        if let Ok(grace) = self.parameter("gracePeriodSeconds").parse::<i64>() {
            set(&mut options, &[], "gracePeriodSeconds", grace);
        }
        DeleteOptions::parse(&options)
    }
}

/// The media type without parameters, in lower case.
fn essence(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Whether a body of this media type can be read. Reads have no body that matters.
fn is_supported(verb: &str, content_type: &str) -> bool {
    match verb {
        "get" | "list" | "watch" => true,
        "patch" => PatchType::from_content_type(content_type).is_ok(),
        _ => content_type == "application/json",
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{Method, Request};

    use super::*;

    async fn code(method: Method, content_type: Option<&str>, body: &'static str) -> u16 {
        let job = if method == Method::POST { "" } else { "/a" };
        let uri = format!("/apis/batch/v1/namespaces/default/jobs{job}");
        let mut request = Request::builder().method(method).uri(uri);
        if let Some(content_type) = content_type {
            request = request.header(CONTENT_TYPE, content_type);
        }
        let (parts, body) = request.body(Body::from(body)).unwrap().into_parts();
        ApiRequest::read(parts, body).await.map_or_else(|error| error.code, |_| 200)
    }

    #[tokio::test]
    async fn body_that_is_not_declared_as_json_is_unsupported() {
        for method in [Method::POST, Method::PUT, Method::DELETE] {
            for (content_type, expected) in [
                (Some("application/json"), 200),
                (Some("Application/JSON; charset=utf-8"), 200),
                (None, 415),
                (Some(""), 415),
                (Some("text/plain"), 415),
                (Some("text/plain; application/json"), 415),
                (Some("text/plain;charset=UTF-8"), 415),
                (Some("application/x-www-form-urlencoded"), 415),
                (Some("multipart/form-data; boundary=application/json"), 415),
                (Some("application/merge-patch+json"), 415),
                (Some("application/yaml"), 415),
                (Some("application/vnd.kubernetes.protobuf"), 415),
                (Some("application/jsonp"), 415),
            ] {
                assert_eq!(
                    code(method.clone(), content_type, "{}").await,
                    expected,
                    "{method} {content_type:?}"
                );
            }
        }
        assert_eq!(code(Method::DELETE, None, "").await, 200);
    }

    #[tokio::test]
    async fn patch_needs_a_patch_type() {
        for (content_type, expected) in [
            (Some("application/merge-patch+json"), 200),
            (Some("application/json-patch+json"), 200),
            (Some("application/strategic-merge-patch+json; charset=utf-8"), 200),
            (Some("application/apply-patch+yaml"), 200),
            (Some("application/json"), 415),
            (Some("text/plain"), 415),
            (None, 415),
        ] {
            assert_eq!(code(Method::PATCH, content_type, "{}").await, expected, "{content_type:?}");
        }
    }
}
