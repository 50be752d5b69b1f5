//! Replace and patch, for objects and for their status subresource.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    create::{check_namespace, check_type, create},
    delete::remove,
};
use crate::{
    error::{ApiError, ApiResult, Cause},
    object::{default, has, is_being_deleted, list, map_at, number, set, text, uid, version},
    patch::PatchType,
    resource::{PODS, Resource},
    rules,
    store::{Key, StoreState},
};

/// The part of an object that a write changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Everything except the status.
    Main,
    /// The status and the metadata.
    Status,
}

/// Replaces an existing object (PUT).
///
/// # Errors
/// 400, 404, 409 `Conflict` and 422.
pub(crate) fn replace(
    state: &mut StoreState,
    resource: &'static Resource,
    key: &Key,
    part: Part,
    body: Value,
    dry_run: bool,
) -> ApiResult<Arc<Value>> {
    check_type(resource, &body)?;
    check_namespace(&key.namespace, &body)?;
    let old = state.get(resource, key)?;
    let name = text(&body, "/metadata/name");
    if name != key.name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            key.name
        )));
    }
    let expected = uid(&body);
    if !expected.is_empty() && expected != uid(&old) {
        let why = format!(
            "Precondition failed: UID in precondition: {expected}, UID in object meta: {}",
            uid(&old)
        );
        return Err(ApiError::conflict(resource, &key.name, &why));
    }
    let mut new = body;
    if version(&new).is_empty() && resource.kind == "Lease" {
        let why = [Cause::invalid("metadata.resourceVersion", &json!(0), "must be specified for an update")];
        return Err(ApiError::invalid(resource, &key.name, &why));
    }
    for field in ["uid", "creationTimestamp", "resourceVersion"] {
        let kept = old.pointer(&format!("/metadata/{field}")).cloned().unwrap_or_default();
        default(&mut new, &["metadata"], field, kept);
    }
    write(state, resource, key, part, new, dry_run)
}

/// Patches an existing object (PATCH).
///
/// # Errors
/// 400, 404, 415, 409 `Conflict` for a different resourceVersion, and 422, also for a different
/// uid.
pub(crate) fn patch(
    state: &mut StoreState,
    resource: &'static Resource,
    key: &Key,
    part: Part,
    (kind, patch): (PatchType, &Value),
    dry_run: bool,
) -> ApiResult<Arc<Value>> {
    let old = state.get(resource, key)?;
    let new = kind.apply(&old, patch)?;
    write(state, resource, key, part, new, dry_run)
}

/// Server-side apply: creates the object if it is absent.
///
/// # Errors
/// As [`patch`] and [`create`].
pub(crate) fn apply(
    state: &mut StoreState,
    resource: &'static Resource,
    key: &Key,
    body: Value,
    dry_run: bool,
) -> ApiResult<Arc<Value>> {
    if state.find(resource, key).is_some() {
        return patch(state, resource, key, Part::Main, (PatchType::Apply, &body), dry_run);
    }
    let mut body = body;
    set(&mut body, &["metadata"], "name", key.name.as_str());
    create(state, resource, &key.namespace, body, dry_run)
}

/// Assigns a pod to a node (`pods/binding`).
///
/// # Errors
/// 404, and 409 if the pod already has a node.
pub(crate) fn bind(state: &mut StoreState, key: &Key, binding: &Value) -> ApiResult<()> {
    let old = state.get(&PODS, key)?;
    let node = text(&old, "/spec/nodeName");
    if !node.is_empty() {
        let why = format!("pod {} is already assigned to node {node:?}", key.name);
        return Err(ApiError::conflict(&PODS, &key.name, &why));
    }
    let mut new = (*old).clone();
    set(&mut new, &["spec"], "nodeName", text(binding, "/target/name"));
    state.put(&PODS, key.clone(), new);
    Ok(())
}

fn write(
    state: &mut StoreState,
    resource: &'static Resource,
    key: &Key,
    part: Part,
    new: Value,
    dry_run: bool,
) -> ApiResult<Arc<Value>> {
    let old = state.get(resource, key)?;
    if version(&new) != version(&old) {
        let why =
            "the object has been modified; please apply your changes to the latest version and try again";
        return Err(ApiError::conflict(resource, &key.name, why));
    }
    let mut new = rules::normalize(resource, new)?;
    restore_read_only(resource, part, &old, &mut new);
    let causes = match part {
        Part::Main => {
            rules::set_defaults(resource, &mut new);
            rules::validate_update(resource, &old, &new)
        }
        Part::Status => {
            // A status update may also change the metadata; the spec stays the old one.
            let mut causes = rules::validate_update(resource, &old, &new);
            causes.extend(rules::validate_status(resource, &old, &new));
            causes
        }
    };
    if !causes.is_empty() {
        return Err(ApiError::invalid(resource, &key.name, &causes));
    }
    // A write without a change produces no event.
    if new == *old {
        return Ok(old);
    }
    if has(&old, "/metadata/generation") && old.get("spec") != new.get("spec") {
        set(&mut new, &["metadata"], "generation", number(&old, "/metadata/generation") + 1);
    }
    if dry_run {
        return Ok(Arc::new(new));
    }
    let is_released = is_being_deleted(&old) && list(&new, "/metadata/finalizers").is_empty();
    if is_released
        && number(&old, "/metadata/deletionGracePeriodSeconds") == 0
        && resource.kind != "Namespace"
    {
        remove(state, resource, key);
        return Ok(Arc::new(new));
    }
    Ok(state.put(resource, key.clone(), new))
}

/// Restores the fields that this write may not change.
fn restore_read_only(resource: &Resource, part: Part, old: &Value, new: &mut Value) {
    set(new, &[], "apiVersion", resource.api_version());
    set(new, &[], "kind", resource.kind);
    for field in ["generation", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        let kept = old.pointer(&format!("/metadata/{field}"));
        restore(map_at(new, &["metadata"]), field, kept);
    }
    if resource.has_status {
        let field = match part {
            Part::Main => "status",
            Part::Status => "spec",
        };
        restore(map_at(new, &[]), field, old.get(field));
    }
    if list(new, "/metadata/finalizers").is_empty() {
        crate::object::remove(new, &["metadata"], "finalizers");
    }
}

fn restore(map: &mut serde_json::Map<String, Value>, field: &str, kept: Option<&Value>) {
    match kept {
        Some(kept) => map.insert(field.to_owned(), kept.clone()),
        None => map.remove(field),
    };
}
