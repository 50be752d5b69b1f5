//! Replace and patch, of objects and of their status.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{create, garbage};
use crate::{
    error::{ApiError, ApiResult},
    object::{has, is_being_deleted, list, map_at, number, set, text, uid, version},
    patch::PatchKind,
    resource::{PODS, Resource},
    rules,
    store::{Inner, Key},
};

/// Which part of an object is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// All but the status.
    Main,
    /// The status, and the metadata.
    Status,
}

/// Puts an object in the place of the one that is there (PUT).
///
/// # Errors
/// 400, 404, 409 `Conflict` and 422.
pub(crate) fn replace(
    inner: &mut Inner,
    resource: &'static Resource,
    key: &Key,
    part: Part,
    body: Value,
    dry_run: bool,
) -> ApiResult<Arc<Value>> {
    create::check_type(resource, &body)?;
    create::check_namespace(&key.namespace, &body)?;
    let old = inner.get(resource, key)?;
    let name = text(&body, "/metadata/name");
    if name != key.name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            key.name
        )));
    }
    let asked = uid(&body);
    if !asked.is_empty() && asked != uid(&old) {
        let why =
            format!("Precondition failed: UID in precondition: {asked}, UID in object meta: {}", uid(&old));
        return Err(ApiError::conflict(resource, &key.name, &why));
    }
    let mut new = body;
    if version(&new).is_empty() && resource.kind == "Lease" {
        let why = [crate::error::Cause::invalid(
            "metadata.resourceVersion",
            &json!(0),
            "must be specified for an update",
        )];
        return Err(ApiError::invalid(resource, &key.name, &why));
    }
    for field in ["uid", "creationTimestamp", "resourceVersion"] {
        let kept = old.pointer(&format!("/metadata/{field}")).cloned().unwrap_or_default();
        crate::object::default(&mut new, &["metadata"], field, kept);
    }
    write(inner, resource, key, part, new, dry_run)
}

/// Changes the object that is there (PATCH).
///
/// # Errors
/// 400, 404, 409 `Conflict` where the patch names another resourceVersion, 415, and 422, also where it names another uid.
pub(crate) fn patch(
    inner: &mut Inner,
    resource: &'static Resource,
    key: &Key,
    part: Part,
    (kind, patch): (PatchKind, &Value),
    dry_run: bool,
) -> ApiResult<Arc<Value>> {
    let old = inner.get(resource, key)?;
    let new = kind.apply(&old, patch)?;
    write(inner, resource, key, part, new, dry_run)
}

/// Server-side apply: creates what is absent.
///
/// # Errors
/// As [`patch`] and [`create`](super::create).
pub(crate) fn apply(
    inner: &mut Inner,
    resource: &'static Resource,
    key: &Key,
    body: Value,
    dry_run: bool,
) -> ApiResult<Arc<Value>> {
    if inner.find(resource, key).is_some() {
        return patch(inner, resource, key, Part::Main, (PatchKind::Apply, &body), dry_run);
    }
    let mut body = body;
    set(&mut body, &["metadata"], "name", key.name.as_str());
    super::create(inner, resource, &key.namespace, body, dry_run)
}

/// Says where a pod is to run (`pods/binding`).
///
/// # Errors
/// 404, and 409 where it has a node already.
pub(crate) fn bind(inner: &mut Inner, key: &Key, binding: &Value) -> ApiResult<()> {
    let old = inner.get(&PODS, key)?;
    let node = text(&old, "/spec/nodeName");
    if !node.is_empty() {
        let why = format!("pod {} is already assigned to node {node:?}", key.name);
        return Err(ApiError::conflict(&PODS, &key.name, &why));
    }
    let mut new = (*old).clone();
    set(&mut new, &["spec"], "nodeName", text(binding, "/target/name"));
    inner.put(&PODS, key.clone(), new);
    Ok(())
}

fn write(
    inner: &mut Inner,
    resource: &'static Resource,
    key: &Key,
    part: Part,
    new: Value,
    dry_run: bool,
) -> ApiResult<Arc<Value>> {
    let old = inner.get(resource, key)?;
    if version(&new) != version(&old) {
        let why =
            "the object has been modified; please apply your changes to the latest version and try again";
        return Err(ApiError::conflict(resource, &key.name, why));
    }
    let mut new = rules::normalize(resource, new)?;
    keep(resource, part, &old, &mut new);
    let causes = match part {
        Part::Main => {
            rules::set_defaults(resource, &mut new);
            rules::validate_update(resource, &old, &new)
        }
        Part::Status => {
            // The metadata comes along, and the spec is the old one.
            let mut causes = rules::validate_update(resource, &old, &new);
            causes.extend(rules::validate_status(resource, &old, &new));
            causes
        }
    };
    if !causes.is_empty() {
        return Err(ApiError::invalid(resource, &key.name, &causes));
    }
    // What changes nothing makes no event.
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
        garbage::remove(inner, resource, key);
        return Ok(Arc::new(new));
    }
    Ok(inner.put(resource, key.clone(), new))
}

/// Keeps what this write cannot change.
fn keep(resource: &Resource, part: Part, old: &Value, new: &mut Value) {
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
