//! Delete: grace, finalizers and garbage collection.
//!
//! Kubernetes collects garbage later, in a controller. Here each write does it immediately, with
//! the same events in the same order.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    delete_options::{DeleteOptions, Propagation},
    list::{ListOptions, list as list_objects},
    namespaces,
};
use crate::{
    error::ApiResult,
    object::{
        finalizers, has, has_finalizer, is_being_deleted, list, map_at, number, seconds_from_now, set, text,
        uid,
    },
    resource::Resource,
    store::{Dependent, Key, StoreState},
};

/// The finalizer of orphan propagation.
const ORPHAN: &str = "orphan";
/// The finalizer of foreground propagation.
const FOREGROUND: &str = "foregroundDeletion";

/// The result of a delete.
pub(crate) enum DeleteResult {
    /// The object is removed.
    Removed(Arc<Value>),
    /// The object waits for its grace period or for a finalizer.
    Terminating(Arc<Value>),
}

/// Removes an object, or marks it as terminating.
///
/// # Errors
/// 404, and 409 if a precondition does not hold.
pub(crate) fn delete(
    state: &mut StoreState,
    resource: &'static Resource,
    key: &Key,
    options: &DeleteOptions,
) -> ApiResult<DeleteResult> {
    let old = state.get(resource, key)?;
    options.check(resource, key, &old)?;
    if options.dry_run {
        return Ok(DeleteResult::Removed(old));
    }
    let default = if resource.kind == "Job" { Propagation::Orphan } else { Propagation::Background };
    let finalizers = with_propagation(&old, options.propagation, default);
    let grace = grace(resource, &old, options.grace);
    let is_namespace = resource.kind == "Namespace";
    if finalizers.is_empty() && grace == 0 && !is_namespace {
        // As in Kubernetes, the end of the grace period is a separate event.
        if number(&old, "/metadata/deletionGracePeriodSeconds") > 0 {
            state.put(resource, key.clone(), mark(&old, finalizers, grace));
        }
        let removed = remove(state, resource, key).unwrap_or(old);
        return Ok(DeleteResult::Removed(removed));
    }
    let mut new = mark(&old, finalizers, grace);
    if is_namespace {
        new = namespaces::mark_terminating(new);
    }
    if new == *old {
        return Ok(DeleteResult::Terminating(old));
    }
    let marked = state.put(resource, key.clone(), new);
    match is_namespace {
        true => delete_contents(state, &key.name),
        false => apply_propagation(state, resource, key),
    }
    Ok(DeleteResult::Terminating(marked))
}

/// Deletes the selected objects and returns them.
///
/// # Errors
/// As for a list.
pub(crate) fn delete_collection(
    state: &mut StoreState,
    resource: &'static Resource,
    namespace: &str,
    list: &ListOptions,
    options: &DeleteOptions,
) -> ApiResult<Vec<Arc<Value>>> {
    let selected = list_objects(state, resource, namespace, list)?.items;
    for object in &selected {
        // An object may already be removed together with its owner.
        let _ = delete(state, resource, &Key::of(object), options);
    }
    Ok(selected)
}

/// The finalizers with the one of the propagation policy.
fn with_propagation(object: &Value, requested: Option<Propagation>, default: Propagation) -> Vec<Value> {
    let mut kept = finalizers(object).to_vec();
    // A second delete without a policy keeps the policy of the first.
    if requested.is_none() && is_being_deleted(object) {
        return kept;
    }
    kept.retain(|finalizer| finalizer != ORPHAN && finalizer != FOREGROUND);
    match requested.unwrap_or(default) {
        Propagation::Orphan => kept.push(ORPHAN.into()),
        Propagation::Foreground => kept.push(FOREGROUND.into()),
        Propagation::Background => {}
    }
    kept
}

/// The grace period. Only pods that are assigned to a node and have not ended have one.
fn grace(resource: &Resource, object: &Value, requested: Option<i64>) -> i64 {
    let is_idle = text(object, "/spec/nodeName").is_empty()
        || ["Succeeded", "Failed"].contains(&text(object, "/status/phase"));
    if resource.kind != "Pod" || is_idle {
        return 0;
    }
    let grace = requested.unwrap_or_else(|| number(object, "/spec/terminationGracePeriodSeconds")).max(0);
    match is_being_deleted(object) {
        // A later delete can only shorten it.
        true => grace.min(number(object, "/metadata/deletionGracePeriodSeconds")),
        false => grace,
    }
}

/// The object with its deletion timestamp and grace period.
fn mark(object: &Value, finalizers: Vec<Value>, grace: i64) -> Value {
    let mut marked = object.clone();
    set(&mut marked, &["metadata"], "finalizers", finalizers);
    if list(&marked, "/metadata/finalizers").is_empty() {
        crate::object::remove(&mut marked, &["metadata"], "finalizers");
    }
    let before = object.pointer("/metadata/deletionGracePeriodSeconds");
    if !is_being_deleted(object) || before != Some(&json!(grace)) {
        set(&mut marked, &["metadata"], "deletionTimestamp", seconds_from_now(grace));
        set(&mut marked, &["metadata"], "deletionGracePeriodSeconds", grace);
    }
    if !is_being_deleted(object) && has(object, "/metadata/generation") {
        set(&mut marked, &["metadata"], "generation", number(object, "/metadata/generation") + 1);
    }
    marked
}

/// Removes an object and collects its garbage.
pub(super) fn remove(state: &mut StoreState, resource: &'static Resource, key: &Key) -> Option<Arc<Value>> {
    let removed = state.remove(resource, key)?;
    for dependent in state.dependents_of(uid(&removed)) {
        remove_owner(state, &dependent, uid(&removed), true);
    }
    for reference in list(&removed, "/metadata/ownerReferences") {
        if let Some((owner, key)) = owner(state, reference, &key.namespace) {
            apply_propagation(state, owner, &key);
        }
    }
    namespaces::remove_if_empty(state, &key.namespace);
    Some(removed)
}

/// Executes the propagation finalizer of a terminating object.
fn apply_propagation(state: &mut StoreState, resource: &'static Resource, key: &Key) {
    let Some(object) = state.find(resource, key).cloned().filter(|object| is_being_deleted(object)) else {
        return;
    };
    if has_finalizer(&object, ORPHAN) {
        for dependent in state.dependents_of(uid(&object)) {
            remove_owner(state, &dependent, uid(&object), false);
        }
        remove_finalizer(state, resource, key, ORPHAN);
    } else if has_finalizer(&object, FOREGROUND) {
        for (resource, key) in state.dependents_of(uid(&object)) {
            if state.find(resource, &key).is_some_and(|dependent| !is_being_deleted(dependent)) {
                let _ = delete(state, resource, &key, &DeleteOptions::background());
            }
        }
        if !is_blocked(state, uid(&object)) {
            remove_finalizer(state, resource, key, FOREGROUND);
        }
    }
}

/// Whether a dependent blocks the deletion of its owner.
fn is_blocked(state: &StoreState, owner: &str) -> bool {
    state.dependents_of(owner).iter().any(|(resource, key)| {
        let references = state.find(resource, key).map(|object| list(object, "/metadata/ownerReferences"));
        references.into_iter().flatten().any(|reference| {
            text(reference, "/uid") == owner
                && reference.get("blockOwnerDeletion") == Some(&Value::Bool(true))
        })
    })
}

/// Removes a finalizer, and the object with its last finalizer.
fn remove_finalizer(state: &mut StoreState, resource: &'static Resource, key: &Key, finalizer: &str) {
    let Some(object) = state.find(resource, key) else { return };
    let kept: Vec<_> = finalizers(object).iter().filter(|found| *found != finalizer).cloned().collect();
    if kept.is_empty() {
        // As in Kubernetes, the update and the removal are one event.
        remove(state, resource, key);
        return;
    }
    let mut object = (**object).clone();
    set(&mut object, &["metadata"], "finalizers", kept);
    state.put(resource, key.clone(), object);
}

/// Removes an owner from a dependent. With `cascade`, a dependent without owners is deleted.
fn remove_owner(state: &mut StoreState, (resource, key): &Dependent, owner: &str, cascade: bool) {
    let Some(object) = state.find(resource, key) else { return };
    let all = list(object, "/metadata/ownerReferences");
    let kept: Vec<_> = all.iter().filter(|reference| text(reference, "/uid") != owner).cloned().collect();
    if kept.is_empty() && cascade {
        let _ = delete(state, resource, key, &DeleteOptions::background());
        return;
    }
    let mut object = (**object).clone();
    match kept.is_empty() {
        true => drop(map_at(&mut object, &["metadata"]).remove("ownerReferences")),
        false => set(&mut object, &["metadata"], "ownerReferences", kept),
    }
    state.put(resource, key.clone(), object);
}

/// Deletes a new object whose owners are all absent: a controller created it after their deletion.
pub(super) fn delete_if_orphaned(
    state: &mut StoreState,
    resource: &'static Resource,
    key: &Key,
    object: &Value,
) {
    let references = list(object, "/metadata/ownerReferences");
    let is_known =
        |reference: &Value| Resource::find_kind(text(reference, "/apiVersion"), text(reference, "/kind"));
    // The absence of an owner of an unknown type cannot be established.
    if references.is_empty() || references.iter().any(|reference| is_known(reference).is_none()) {
        return;
    }
    if references.iter().all(|reference| owner(state, reference, &key.namespace).is_none()) {
        let _ = delete(state, resource, key, &DeleteOptions::background());
    }
}

fn owner(state: &StoreState, reference: &Value, namespace: &str) -> Option<(&'static Resource, Key)> {
    let resource = Resource::find_kind(text(reference, "/apiVersion"), text(reference, "/kind"))?;
    let namespace = if resource.namespaced { namespace } else { "" };
    let key = Key::new(namespace, text(reference, "/name"));
    let found = state.find(resource, &key)?;
    (uid(found) == text(reference, "/uid")).then_some((resource, key))
}

/// Deletes the objects of a terminating namespace.
fn delete_contents(state: &mut StoreState, namespace: &str) {
    for (resource, key) in namespaces::contents(state, namespace) {
        // An object may already be removed together with its owner.
        let _ = delete(state, resource, &key, &DeleteOptions::background());
    }
    namespaces::remove_if_empty(state, namespace);
}
