//! What follows from a removal: dependents go, owners that waited for them go.
//!
//! Kubernetes does this a little later, in a controller; here it is done at once, and in the same order of events.

use std::sync::Arc;

use serde_json::Value;

use super::{
    delete::{DeleteOptions, FOREGROUND, ORPHAN, delete},
    namespaces,
};
use crate::{
    object::{finalizers, has_finalizer, is_being_deleted, list, map_at, set, text, uid},
    resource::Resource,
    store::{Inner, Key, Owned},
};

/// Removes an object, and does what follows from that.
pub(super) fn remove(inner: &mut Inner, resource: &'static Resource, key: &Key) -> Option<Arc<Value>> {
    let removed = inner.remove(resource, key)?;
    for dependent in inner.owned_by(uid(&removed)) {
        lose_owner(inner, &dependent, uid(&removed), true);
    }
    for reference in list(&removed, "/metadata/ownerReferences") {
        if let Some((owner, key)) = owner(inner, reference, &key.namespace) {
            settle(inner, owner, &key);
        }
    }
    namespaces::leave_if_empty(inner, &key.namespace);
    Some(removed)
}

/// Does what the propagation's finalizers of an object that is being deleted stand for.
pub(super) fn settle(inner: &mut Inner, resource: &'static Resource, key: &Key) {
    let Some(object) = inner.find(resource, key).cloned().filter(|object| is_being_deleted(object)) else {
        return;
    };
    if has_finalizer(&object, ORPHAN) {
        for dependent in inner.owned_by(uid(&object)) {
            lose_owner(inner, &dependent, uid(&object), false);
        }
        release(inner, resource, key, ORPHAN);
    } else if has_finalizer(&object, FOREGROUND) {
        for (resource, key) in inner.owned_by(uid(&object)) {
            if inner.find(resource, &key).is_some_and(|dependent| !is_being_deleted(dependent)) {
                let _ = delete(inner, resource, &key, &DeleteOptions::background());
            }
        }
        if !is_blocked(inner, uid(&object)) {
            release(inner, resource, key, FOREGROUND);
        }
    }
}

fn is_blocked(inner: &Inner, owner: &str) -> bool {
    inner.owned_by(owner).iter().any(|(resource, key)| {
        let references = inner.find(resource, key).map(|object| list(object, "/metadata/ownerReferences"));
        references.into_iter().flatten().any(|reference| {
            text(reference, "/uid") == owner
                && reference.get("blockOwnerDeletion") == Some(&Value::Bool(true))
        })
    })
}

/// Takes a finalizer away.
fn release(inner: &mut Inner, resource: &'static Resource, key: &Key, finalizer: &str) {
    let Some(object) = inner.find(resource, key) else { return };
    let kept: Vec<_> = finalizers(object).iter().filter(|found| *found != finalizer).cloned().collect();
    if kept.is_empty() {
        // The last one: it goes without another event, as in Kubernetes.
        remove(inner, resource, key);
        return;
    }
    let mut object = (**object).clone();
    set(&mut object, &["metadata"], "finalizers", kept);
    inner.put(resource, key.clone(), object);
}

/// A dependent without one of its owners: it goes if that was the last and it is to follow.
fn lose_owner(inner: &mut Inner, (resource, key): &Owned, owner: &str, follow: bool) {
    let Some(object) = inner.find(resource, key) else { return };
    let all = list(object, "/metadata/ownerReferences");
    let kept: Vec<_> = all.iter().filter(|reference| text(reference, "/uid") != owner).cloned().collect();
    if kept.is_empty() && follow {
        let _ = delete(inner, resource, key, &DeleteOptions::background());
        return;
    }
    let mut object = (**object).clone();
    match kept.is_empty() {
        true => drop(map_at(&mut object, &["metadata"]).remove("ownerReferences")),
        false => set(&mut object, &["metadata"], "ownerReferences", kept),
    }
    inner.put(resource, key.clone(), object);
}

/// A new object whose owners are all gone goes too: a controller created it too late.
pub(super) fn collect_orphan(inner: &mut Inner, resource: &'static Resource, key: &Key, object: &Value) {
    let references = list(object, "/metadata/ownerReferences");
    let is_known =
        |reference: &Value| Resource::of_kind(text(reference, "/apiVersion"), text(reference, "/kind"));
    // Of what this cluster does not know it cannot say that it is gone.
    if references.is_empty() || references.iter().any(|reference| is_known(reference).is_none()) {
        return;
    }
    if references.iter().all(|reference| owner(inner, reference, &key.namespace).is_none()) {
        let _ = delete(inner, resource, key, &DeleteOptions::background());
    }
}

fn owner(inner: &Inner, reference: &Value, namespace: &str) -> Option<(&'static Resource, Key)> {
    let resource = Resource::of_kind(text(reference, "/apiVersion"), text(reference, "/kind"))?;
    let namespace = if resource.namespaced { namespace } else { "" };
    let key = Key::new(namespace, text(reference, "/name"));
    let found = inner.find(resource, &key)?;
    (uid(found) == text(reference, "/uid")).then_some((resource, key))
}
