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
        if content_type.contains("protobuf") || content_type == "application/yaml" {
            return Err(ApiError::unsupported_media_type(content_type));
        }
        let body = match bytes.is_empty() {
            true => Value::Null,
            false => serde_json::from_slice(&bytes).map_err(|error| {
                ApiError::bad_request(format!("couldn't get version/kind; json parse error: {error}"))
            })?,
        };
        let view = View::from_headers(&parts.headers, query.get("includeObject").map(String::as_str));
        Ok(Self { call, view, content_type: content_type.to_owned(), body, query })
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
