//! Namespaces: nothing is created in one that is absent or on its way out, and one goes when it is empty.

use serde_json::{Value, json};

use super::delete::{DeleteOptions, delete};
use crate::{
    error::{ApiError, ApiResult},
    object::{is_being_deleted, remove, set},
    resource::{ALL, NAMESPACES, Resource},
    store::{Inner, Key},
};

fn key(namespace: &str) -> Key {
    Key::new("", namespace)
}

/// Makes a namespace, if its name is valid.
pub(crate) fn seed(inner: &mut Inner, name: &str) -> ApiResult<()> {
    let body = json!({"metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}}});
    super::create(inner, &NAMESPACES, "", body, false).map(drop)
}

/// Whether an object may be created at `object`.
pub(super) fn admit(inner: &Inner, resource: &Resource, object: &Key) -> ApiResult<()> {
    if !resource.namespaced {
        return Ok(());
    }
    let namespace = inner.get(&NAMESPACES, &key(&object.namespace))?;
    if !is_being_deleted(&namespace) {
        return Ok(());
    }
    let name = &object.namespace;
    let why = format!("unable to create new content in namespace {name} because it is being terminated");
    let mut error = ApiError::forbidden(resource, &object.name, &why);
    let cause = json!({"reason": "NamespaceTerminating", "field": "metadata.namespace",
        "message": format!("namespace {name} is being terminated")});
    if let Some(details) = error.details.as_mut() {
        set(details, &[], "causes", json!([cause]));
    }
    Err(error)
}

/// After a namespace was marked as being deleted: all that is in it is deleted too.
pub(super) fn empty(inner: &mut Inner, namespace: &str) {
    for resource in ALL.into_iter().filter(|resource| resource.namespaced) {
        for key in keys(inner, resource, namespace) {
            // What is gone by now went with its owner.
            let _ = delete(inner, resource, &key, &DeleteOptions::background());
        }
    }
    leave_if_empty(inner, namespace);
}

/// After something in `namespace` was removed.
pub(super) fn leave_if_empty(inner: &mut Inner, namespace: &str) {
    let key = key(namespace);
    let is_leaving = inner.find(&NAMESPACES, &key).is_some_and(|found| is_being_deleted(found));
    let is_used = || {
        ALL.into_iter()
            .filter(|resource| resource.namespaced)
            .any(|resource| inner.shelf(resource).is_ok_and(|shelf| shelf.within(namespace).next().is_some()))
    };
    if is_leaving && !is_used() {
        inner.remove(&NAMESPACES, &key);
    }
}

fn keys(inner: &Inner, resource: &Resource, namespace: &str) -> Vec<Key> {
    let keys = |shelf: &crate::store::Shelf| shelf.within(namespace).map(|(key, _)| key.clone()).collect();
    inner.shelf(resource).map(keys).unwrap_or_default()
}

/// A namespace that is to go.
pub(super) fn terminating(mut namespace: Value) -> Value {
    set(&mut namespace, &["status"], "phase", "Terminating");
    remove(&mut namespace, &["metadata"], "deletionGracePeriodSeconds");
    namespace
}
