//! Routes a call to its verb and formats the response.

use std::{io, sync::Arc};

use axum::{extract::Request, response::Response};
use serde_json::{Value, json};

use super::{discovery, pod_log, request::ApiRequest, response, state::State, watch};
use crate::{
    api::{self, DeleteResult, Part},
    call::Call,
    error::{ApiError, ApiResult, unknown_field},
    object::{default, set, text, uid},
    patch::PatchType,
    resource::ACCESS_REVIEWS,
    rules,
    store::Key,
};

/// Answers a request; an error breaks the connection.
pub(crate) async fn respond(state: Arc<State>, request: Request) -> io::Result<Response> {
    let (parts, body) = request.into_parts();
    if let Some(document) = discovery::document(parts.uri.path()) {
        return Ok(response::json(200, &document));
    }
    let request = match ApiRequest::read(parts, body).await {
        Ok(request) => request,
        Err(error) => return Ok(response::error(&error)),
    };
    let failure = match state.faults.evaluate(&request.call).await {
        Ok(failure) => failure,
        Err(error) => return Ok(response::error(&error)),
    };
    response::apply_failure(failure, async {
        let result = async {
            let warnings = validate_fields(&request)?;
            Ok(response::with_warnings(perform(&state, &request).await?, &warnings))
        };
        Ok(result.await.unwrap_or_else(|error| response::error(&error)))
    })
    .await
}

/// Checks a written object as `fieldValidation` demands, and returns a warning for each unknown
/// field. The paths of a JSON patch are not checked.
fn validate_fields(request: &ApiRequest) -> ApiResult<Vec<String>> {
    let call = &request.call;
    let is_write = ["create", "update", "patch"].contains(&call.verb);
    let is_json_patch = request.content_type == "application/json-patch+json";
    let directive = request.parameter("fieldValidation");
    if !is_write
        || is_json_patch
        || directive == "Ignore"
        || !["", "status"].contains(&call.subresource.as_str())
    {
        return Ok(Vec::new());
    }
    if !["", "Strict", "Warn"].contains(&directive) {
        return Err(ApiError::bad_request(format!(
            "fieldValidation: unsupported value {directive:?} (supported: Ignore, Strict, Warn)"
        )));
    }
    let unknown = rules::unknown_fields(call.resource, &request.body);
    match directive == "Strict" && !unknown.is_empty() {
        true => Err(ApiError::unknown_fields(call.resource, &unknown)),
        false => Ok(unknown.iter().map(|field| unknown_field(field)).collect()),
    }
}

async fn perform(state: &Arc<State>, request: &ApiRequest) -> ApiResult<Response> {
    let Call { verb, resource, subresource, .. } = &request.call;
    match (*verb, resource.plural, subresource.as_str()) {
        ("get", "pods", "log") => pod_log::read(state, request).await,
        ("create", "selfsubjectaccessreviews", "") => {
            Ok(response::json(201, &review_access(state, &request.body)))
        }
        (_, "selfsubjectaccessreviews", _) => Err(ApiError::method_not_allowed()),
        ("watch", _, "") => watch::start(state, request),
        ("list", _, "") => list(state, request),
        ("deletecollection", _, "") => delete_collection(state, request),
        ("create", _, "") => create(state, request),
        ("create", "pods", "binding") => bind(state, request),
        ("create", _, _) => Err(ApiError::path_not_found()),
        (verb, _, "") => access_object(state, request, verb, Part::Main),
        (verb, _, "status") if resource.has_status => access_object(state, request, verb, Part::Status),
        _ => Err(ApiError::path_not_found()),
    }
}

fn key(call: &Call) -> Key {
    Key::new(&call.namespace, &call.name)
}

/// The verbs on one existing object.
fn access_object(state: &State, request: &ApiRequest, verb: &str, part: Part) -> ApiResult<Response> {
    let (resource, key, dry_run) = (request.call.resource, key(&request.call), request.is_dry_run());
    let store = &state.store;
    let body = || request.body.clone();
    let object = match verb {
        "get" => store.read(|state| state.get(resource, &key))?,
        "update" => store.write(|state| api::replace(state, resource, &key, part, body(), dry_run))?,
        "patch" => match PatchType::from_content_type(&request.content_type)? {
            PatchType::Apply if part == Part::Main => {
                store.write(|state| api::apply(state, resource, &key, body(), dry_run))?
            }
            type_ => store
                .write(|state| api::patch(state, resource, &key, part, (type_, &request.body), dry_run))?,
        },
        "delete" if part == Part::Main => return delete(state, request),
        _ => return Err(ApiError::method_not_allowed()),
    };
    Ok(response::json(200, &request.view.object(resource, &object)))
}

fn create(state: &State, request: &ApiRequest) -> ApiResult<Response> {
    let (call, body) = (&request.call, request.body.clone());
    let created = state
        .store
        .write(|state| api::create(state, call.resource, &call.namespace, body, request.is_dry_run()))?;
    Ok(response::json(201, &request.view.object(call.resource, &created)))
}

fn bind(state: &State, request: &ApiRequest) -> ApiResult<Response> {
    state.store.write(|state| api::bind(state, &key(&request.call), &request.body))?;
    Ok(response::json(
        201,
        &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}),
    ))
}

fn delete(state: &State, request: &ApiRequest) -> ApiResult<Response> {
    let (resource, options) = (request.call.resource, request.delete_options()?);
    match state.store.write(|state| api::delete(state, resource, &key(&request.call), &options))? {
        DeleteResult::Terminating(object) => Ok(response::json(200, &object)),
        // As in Kubernetes: deleting a pod returns the pod, deleting another object returns a
        // Status.
        DeleteResult::Removed(object) if resource.kind == "Pod" => Ok(response::json(200, &object)),
        DeleteResult::Removed(object) => Ok(response::json(
            200,
            &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": {
                "name": request.call.name, "group": resource.group, "kind": resource.plural,
                "uid": uid(&object)}}),
        )),
    }
}

fn delete_collection(state: &State, request: &ApiRequest) -> ApiResult<Response> {
    let (call, list, options) = (&request.call, request.list_options()?, request.delete_options()?);
    let (items, version) = state.store.write(|state| {
        let items = api::delete_collection(state, call.resource, &call.namespace, &list, &options)?;
        Ok((items, state.version()))
    })?;
    let page = api::Page { items, version, token: String::new(), remaining: 0 };
    Ok(response::json(200, &request.view.list(call.resource, &page)))
}

fn list(state: &State, request: &ApiRequest) -> ApiResult<Response> {
    let options = request.list_options()?;
    let call = &request.call;
    let page = state.store.read(|state| api::list(state, call.resource, &call.namespace, &options))?;
    Ok(response::json(200, &request.view.list(call.resource, &page)))
}

/// Answers a `SelfSubjectAccessReview`: every call is allowed unless a fault denies it.
fn review_access(state: &State, review: &Value) -> Value {
    let attribute = |name: &str| text(review, &format!("/spec/resourceAttributes/{name}"));
    let allowed = Call::from_review(attribute).is_none_or(|call| state.faults.allows(&call));
    let mut reviewed = review.clone();
    set(&mut reviewed, &[], "kind", ACCESS_REVIEWS.kind);
    set(&mut reviewed, &[], "apiVersion", ACCESS_REVIEWS.api_version());
    default(&mut reviewed, &[], "metadata", json!({}));
    set(&mut reviewed, &[], "status", json!({"allowed": allowed}));
    reviewed
}
