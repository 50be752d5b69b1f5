//! Create.

use std::sync::Arc;

use serde_json::{Value, json};
use uuid::Uuid;

use super::{delete::delete_if_orphaned, namespaces};
use crate::{
    error::{ApiError, ApiResult},
    object::{map_at, name, now, set, text},
    resource::{NAMESPACES, Resource, SERVICE_ACCOUNTS},
    rules,
    store::{Key, StoreState},
};

/// Creates an object. A dry run returns the object without storing it.
///
/// # Errors
/// 400, 403, 404, 422 and 409 `AlreadyExists`, checked in the order of Kubernetes.
pub(crate) fn create(
    state: &mut StoreState,
    resource: &'static Resource,
    namespace: &str,
    body: Value,
    dry_run: bool,
) -> ApiResult<Arc<Value>> {
    let object = prepare(resource, namespace, body)?;
    let key = Key::of(&object);
    namespaces::check_active(state, resource, &key)?;
    let causes = rules::validate(resource, &object);
    if !causes.is_empty() {
        return Err(ApiError::invalid(resource, &key.name, &causes));
    }
    if state.find(resource, &key).is_some() {
        return Err(ApiError::already_exists(resource, &key.name));
    }
    if dry_run {
        return Ok(Arc::new(object));
    }
    let created = state.put(resource, key.clone(), object);
    delete_if_orphaned(state, resource, &key, &created);
    if resource.kind == "Namespace" {
        // Kubernetes creates one in each namespace, and clients wait for it.
        let account = json!({"metadata": {"name": "default"}});
        create(state, &SERVICE_ACCOUNTS, &key.name, account, false)?;
    }
    Ok(created)
}

/// Creates a namespace.
///
/// # Errors
/// As [`create`].
pub(crate) fn create_namespace(state: &mut StoreState, name: &str) -> ApiResult<()> {
    let body = json!({"metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}}});
    create(state, &NAMESPACES, "", body, false).map(drop)
}

/// Adds the fields that the server sets.
fn prepare(resource: &'static Resource, namespace: &str, body: Value) -> ApiResult<Value> {
    check_type(resource, &body)?;
    check_namespace(namespace, &body)?;
    let mut object = rules::normalize(resource, body)?;
    set(&mut object, &[], "apiVersion", resource.api_version());
    set(&mut object, &[], "kind", resource.kind);
    let generated = generated_name(&object);
    let metadata = map_at(&mut object, &["metadata"]);
    for field in
        ["resourceVersion", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "managedFields"]
    {
        metadata.remove(field);
    }
    if let Some(name) = generated {
        metadata.insert("name".to_owned(), name.into());
    }
    if resource.namespaced {
        metadata.insert("namespace".to_owned(), namespace.into());
    }
    metadata.insert("uid".to_owned(), Uuid::new_v4().to_string().into());
    metadata.insert("creationTimestamp".to_owned(), now().into());
    if resource.has_status && resource.namespaced {
        metadata.insert("generation".to_owned(), 1.into());
    }
    if resource.has_status {
        set(&mut object, &[], "status", json!({}));
    }
    rules::set_defaults(resource, &mut object);
    rules::prepare(resource, &mut object);
    Ok(object)
}

/// Checks `apiVersion` and `kind` against the path. An absent field is valid.
pub(super) fn check_type(resource: &Resource, body: &Value) -> ApiResult<()> {
    if !body.is_object() {
        return Err(ApiError::bad_request("the request body is not a JSON object"));
    }
    let (version, kind) = (text(body, "/apiVersion"), text(body, "/kind"));
    let expected = resource.api_version();
    let matches = |found: &str, expected: &str| found.is_empty() || found == expected;
    match matches(version, &expected) && matches(kind, resource.kind) {
        true => Ok(()),
        false => Err(ApiError::bad_request(format!(
            "the object provided is unrecognized: got {version} {kind}, expected {expected} {}",
            resource.kind
        ))),
    }
}

/// Checks `metadata.namespace` against the path. An absent field is valid.
pub(super) fn check_namespace(namespace: &str, body: &Value) -> ApiResult<()> {
    let found = text(body, "/metadata/namespace");
    match found.is_empty() || found == namespace {
        true => Ok(()),
        false => Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        )),
    }
}

/// `generateName` plus five random characters of Kubernetes' alphabet, which has no vowels.
fn generated_name(object: &Value) -> Option<String> {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let prefix = text(object, "/metadata/generateName");
    if prefix.is_empty() || !name(object).is_empty() {
        return None;
    }
    let random = Uuid::new_v4();
    let character = |byte: &u8| ALPHABET.get(usize::from(*byte) % ALPHABET.len()).copied().map(char::from);
    let suffix: String = random.as_bytes().iter().take(5).filter_map(character).collect();
    let kept: String = prefix.chars().take(58).collect();
    Some(kept + &suffix)
}
