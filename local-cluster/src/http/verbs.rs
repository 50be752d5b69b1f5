//! From a call to the verb that does it.

use std::{collections::HashMap, io, sync::Arc, time::Duration};

use axum::{
    body::{Body, to_bytes},
    extract::{Query, Request},
    http::{header::CONTENT_TYPE, request::Parts},
    response::Response,
};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{Call, State, answer, carry_out, discovery, log, table, watch};
use crate::{
    api::{self, DeleteOptions, Deleted, ListOptions, Part},
    error::{ApiError, ApiResult},
    patch::PatchKind,
    resource::ACCESS_REVIEWS,
    selector::Selector,
};

/// As the API server has it.
const BODY_LIMIT: usize = 3 << 20;
/// How long the body of a request may take.
const BODY_DEADLINE: Duration = Duration::from_secs(60);

/// A request, read.
pub(super) struct Asked {
    pub(super) call: Call,
    pub(super) query: HashMap<String, String>,
    pub(super) shape: table::Shape,
    content_type: String,
    body: Value,
}

impl Asked {
    /// A query parameter; empty where there is none.
    pub(super) fn parameter(&self, name: &str) -> &str {
        self.query.get(name).map_or("", String::as_str)
    }

    /// Whether a query parameter is set to true.
    pub(super) fn is_set(&self, name: &str) -> bool {
        ["true", "1"].contains(&self.parameter(name))
    }

    /// What the query parameters select.
    pub(super) fn selector(&self) -> ApiResult<Selector> {
        let (labels, fields) = (self.parameter("labelSelector"), self.parameter("fieldSelector"));
        let mut fields = fields.to_owned();
        if self.call.verb == "watch" && !self.call.name.is_empty() {
            fields = format!("metadata.name={},{fields}", self.call.name);
        }
        Selector::parse(self.call.resource, labels, &fields)
    }

    fn list_options(&self) -> ApiResult<ListOptions> {
        Ok(ListOptions {
            selector: self.selector()?,
            limit: self.parameter("limit").parse().unwrap_or(0),
            token: self.parameter("continue").to_owned(),
            version: self.parameter("resourceVersion").to_owned(),
            version_match: self.parameter("resourceVersionMatch").to_owned(),
        })
    }

    fn delete_options(&self) -> ApiResult<DeleteOptions> {
        let mut options = if self.body.is_object() { self.body.clone() } else { json!({}) };
        if !self.parameter("propagationPolicy").is_empty() {
            crate::object::set(&mut options, &[], "propagationPolicy", self.parameter("propagationPolicy"));
        }
        if let Ok(grace) = self.parameter("gracePeriodSeconds").parse::<i64>() {
            crate::object::set(&mut options, &[], "gracePeriodSeconds", grace);
        }
        DeleteOptions::read(&options)
    }

    fn is_dry_run(&self) -> bool {
        self.parameter("dryRun") == "All"
    }
}

/// See [`super::respond`].
pub(super) async fn respond(state: &Arc<State>, request: Request) -> io::Result<Response> {
    let (parts, body) = request.into_parts();
    if let Some(document) = discovery::document(parts.uri.path()) {
        return Ok(answer::json(200, &document));
    }
    let asked = match read(parts, body).await {
        Ok(asked) => asked,
        Err(error) => return Ok(answer::error(&error)),
    };
    let verdict = match state.faults.meet(&asked.call).await {
        Ok(verdict) => verdict,
        Err(error) => return Ok(answer::error(&error)),
    };
    carry_out(verdict, async {
        Ok(perform(state, &asked).await.unwrap_or_else(|error| answer::error(&error)))
    })
    .await
}

async fn read(parts: Parts, body: Body) -> ApiResult<Asked> {
    let query = Query::<HashMap<String, String>>::try_from_uri(&parts.uri)
        .map_err(|error| ApiError::bad_request(error.to_string()))?
        .0;
    let call = Call::parse(&parts.method, parts.uri.path(), watch::is_asked_for(&query))?;
    let bytes = timeout(BODY_DEADLINE, to_bytes(body, BODY_LIMIT))
        .await
        .map_err(|_| ApiError::of_code(408))?
        .map_err(|_| ApiError::too_large())?;
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
    let shape = table::Shape::of(&parts.headers, query.get("includeObject").map(String::as_str));
    Ok(Asked { call, query, shape, content_type: content_type.to_owned(), body })
}

async fn perform(state: &Arc<State>, asked: &Asked) -> ApiResult<Response> {
    let Call { verb, resource, subresource, .. } = &asked.call;
    match (*verb, resource.plural, subresource.as_str()) {
        ("get", "pods", "log") => log::read(state, asked).await,
        ("create", "selfsubjectaccessreviews", "") => Ok(answer::json(201, &review(state, &asked.body))),
        (_, "selfsubjectaccessreviews", _) => Err(ApiError::method_not_allowed()),
        ("watch", _, "") => watch::start(state, asked),
        ("list", _, "") => list(state, asked),
        ("deletecollection", _, "") => delete_collection(state, asked),
        ("create", _, "") => create(state, asked),
        ("create", "pods", "binding") => bind(state, asked),
        ("create", _, _) => Err(ApiError::no_such_path()),
        (verb, _, "") => one(state, asked, verb, Part::Main),
        (verb, _, "status") if resource.has_status => one(state, asked, verb, Part::Status),
        _ => Err(ApiError::no_such_path()),
    }
}

fn key(call: &Call) -> crate::store::Key {
    crate::store::Key::new(&call.namespace, &call.name)
}

fn one(state: &State, asked: &Asked, verb: &str, part: Part) -> ApiResult<Response> {
    let (resource, key, dry_run) = (asked.call.resource, key(&asked.call), asked.is_dry_run());
    let body = || asked.body.clone();
    let object = match verb {
        "get" => state.store.read(|inner| inner.get(resource, &key))?,
        "update" => state.store.write(|inner| api::replace(inner, resource, &key, part, body(), dry_run))?,
        "patch" => match PatchKind::of(&asked.content_type)? {
            PatchKind::Apply if part == Part::Main => {
                state.store.write(|inner| api::apply(inner, resource, &key, body(), dry_run))?
            }
            kind => state
                .store
                .write(|inner| api::patch(inner, resource, &key, part, (kind, &asked.body), dry_run))?,
        },
        "delete" if part == Part::Main => return delete(state, asked),
        _ => return Err(ApiError::method_not_allowed()),
    };
    Ok(answer::json(200, &asked.shape.object(resource, &object)))
}

fn create(state: &State, asked: &Asked) -> ApiResult<Response> {
    let (call, body) = (&asked.call, asked.body.clone());
    let created = state
        .store
        .write(|inner| api::create(inner, call.resource, &call.namespace, body, asked.is_dry_run()))?;
    Ok(answer::json(201, &asked.shape.object(call.resource, &created)))
}

fn bind(state: &State, asked: &Asked) -> ApiResult<Response> {
    state.store.write(|inner| api::bind(inner, &key(&asked.call), &asked.body))?;
    Ok(answer::json(
        201,
        &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}),
    ))
}

fn delete(state: &State, asked: &Asked) -> ApiResult<Response> {
    let (resource, options) = (asked.call.resource, asked.delete_options()?);
    match state.store.write(|inner| api::delete(inner, resource, &key(&asked.call), &options))? {
        Deleted::Marked(object) => Ok(answer::json(200, &object)),
        // The pods' storage returns what it deleted, that of the others says so.
        Deleted::Gone(object) if resource.kind == "Pod" => Ok(answer::json(200, &object)),
        Deleted::Gone(object) => Ok(answer::json(
            200,
            &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": {
                "name": asked.call.name, "group": resource.group, "kind": resource.plural,
                "uid": crate::object::uid(&object)}}),
        )),
    }
}

fn delete_collection(state: &State, asked: &Asked) -> ApiResult<Response> {
    let (call, list, options) = (&asked.call, asked.list_options()?, asked.delete_options()?);
    let (items, version) = state.store.write(|inner| {
        let items = api::delete_collection(inner, call.resource, &call.namespace, &list, &options)?;
        Ok((items, inner.version()))
    })?;
    let page = api::Page { items, version, token: String::new(), remaining: 0 };
    Ok(answer::json(200, &asked.shape.list(call.resource, &page)))
}

fn list(state: &State, asked: &Asked) -> ApiResult<Response> {
    let options = asked.list_options()?;
    let call = &asked.call;
    let page = state.store.read(|inner| api::list(inner, call.resource, &call.namespace, &options))?;
    Ok(answer::json(200, &asked.shape.list(call.resource, &page)))
}

/// A `SelfSubjectAccessReview` with its answer: whatever is not denied is allowed.
fn review(state: &State, review: &Value) -> Value {
    let attribute = |name: &str| crate::object::text(review, &format!("/spec/resourceAttributes/{name}"));
    let allowed = Call::reviewed(attribute).is_none_or(|call| state.faults.allows(&call));
    let mut answer = review.clone();
    crate::object::set(&mut answer, &[], "kind", ACCESS_REVIEWS.kind);
    crate::object::set(&mut answer, &[], "apiVersion", ACCESS_REVIEWS.api_version());
    crate::object::default(&mut answer, &[], "metadata", json!({}));
    crate::object::set(&mut answer, &[], "status", json!({"allowed": allowed}));
    answer
}
