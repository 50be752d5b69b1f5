//! Create.

use std::sync::Arc;

use serde_json::{Value, json};
use uuid::Uuid;

use super::{garbage, namespaces};
use crate::{
    error::{ApiError, ApiResult},
    object::{map_at, name, now, set, text},
    resource::{Resource, SERVICE_ACCOUNTS},
    rules,
    store::{Inner, Key},
};

/// Creates an object; with `dry_run` it only says what it would be.
///
/// # Errors
/// 400, 403, 404, 409 `AlreadyExists` and 422, in the order in which Kubernetes looks.
pub(crate) fn create(
    inner: &mut Inner,
    resource: &'static Resource,
    namespace: &str,
    body: Value,
    dry_run: bool,
) -> ApiResult<Arc<Value>> {
    let object = prepare(resource, namespace, body)?;
    let key = Key::of(&object);
    namespaces::admit(inner, resource, &key)?;
    let causes = rules::validate(resource, &object);
    if !causes.is_empty() {
        return Err(ApiError::invalid(resource, &key.name, &causes));
    }
    if inner.find(resource, &key).is_some() {
        return Err(ApiError::already_exists(resource, &key.name));
    }
    if dry_run {
        return Ok(Arc::new(object));
    }
    let created = inner.put(resource, key.clone(), object);
    garbage::collect_orphan(inner, resource, &key, &created);
    if resource.kind == "Namespace" {
        // Each has one, and clients wait for it.
        let account = json!({"metadata": {"name": "default"}});
        create(inner, &SERVICE_ACCOUNTS, &key.name, account, false)?;
    }
    Ok(created)
}

/// The object with all that the server adds to it.
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

/// What the object says of its type has to be that of the path. What it leaves out is taken from there.
pub(super) fn check_type(resource: &Resource, body: &Value) -> ApiResult<()> {
    if !body.is_object() {
        return Err(ApiError::bad_request("the body of the request is no JSON object"));
    }
    let (version, kind) = (text(body, "/apiVersion"), text(body, "/kind"));
    let expected = resource.api_version();
    let fits = |found: &str, expected: &str| found.is_empty() || found == expected;
    match fits(version, &expected) && fits(kind, resource.kind) {
        true => Ok(()),
        false => Err(ApiError::bad_request(format!(
            "the object provided is unrecognized: {version} {kind} where {expected} {} is expected",
            resource.kind
        ))),
    }
}

pub(super) fn check_namespace(namespace: &str, body: &Value) -> ApiResult<()> {
    let found = text(body, "/metadata/namespace");
    match found.is_empty() || found == namespace {
        true => Ok(()),
        false => Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        )),
    }
}

/// `generateName` and five letters, as Kubernetes has it: no vowels, and nothing that looks like another.
fn generated_name(object: &Value) -> Option<String> {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let prefix = text(object, "/metadata/generateName");
    if prefix.is_empty() || !name(object).is_empty() {
        return None;
    }
    let random = Uuid::new_v4();
    let letter = |byte: &u8| LETTERS.get(usize::from(*byte) % LETTERS.len()).copied().map(char::from);
    let suffix: String = random.as_bytes().iter().take(5).filter_map(letter).collect();
    let kept: String = prefix.chars().take(58).collect();
    Some(kept + &suffix)
}
