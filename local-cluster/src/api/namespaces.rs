//! Namespaces: only an active one accepts objects, and a terminating one is removed when empty.

use serde_json::{Value, json};

use crate::{
    error::{ApiError, ApiResult},
    object::{is_being_deleted, remove, set},
    resource::{ALL, NAMESPACES, Resource},
    store::{Key, StoreState},
};

fn key(namespace: &str) -> Key {
    Key::new("", namespace)
}

/// Checks that the namespace of a new object accepts objects.
///
/// # Errors
/// 404 if the namespace is absent, 403 if it is terminating.
pub(super) fn check_active(state: &StoreState, resource: &Resource, object: &Key) -> ApiResult<()> {
    if !resource.namespaced {
        return Ok(());
    }
    let namespace = state.get(&NAMESPACES, &key(&object.namespace))?;
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

/// Removes a terminating namespace that holds no objects.
pub(super) fn remove_if_empty(state: &mut StoreState, namespace: &str) {
    let key = key(namespace);
    let is_terminating = state.find(&NAMESPACES, &key).is_some_and(|found| is_being_deleted(found));
    if is_terminating && contents(state, namespace).is_empty() {
        state.remove(&NAMESPACES, &key);
    }
}

/// The objects in a namespace.
pub(super) fn contents(state: &StoreState, namespace: &str) -> Vec<(&'static Resource, Key)> {
    let resources = ALL.into_iter().filter(|resource| resource.namespaced);
    let keys = |resource: &'static Resource| {
        let objects = state.resource_store(resource).ok()?;
        Some(objects.in_namespace(namespace).map(move |(key, _)| (resource, key.clone())))
    };
    resources.filter_map(keys).flatten().collect()
}

/// Sets the phase of the namespace to `Terminating`.
pub(super) fn mark_terminating(mut namespace: Value) -> Value {
    set(&mut namespace, &["status"], "phase", "Terminating");
    remove(&mut namespace, &["metadata"], "deletionGracePeriodSeconds");
    namespace
}
