//! Delete: grace, finalizers, and what becomes of the dependents.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{garbage, list::ListOptions, namespaces};
use crate::{
    error::{ApiError, ApiResult, Cause},
    object::{after, finalizers, has, is_being_deleted, number, set, text, uid, version},
    resource::{DELETE_OPTIONS, Resource},
    store::{Inner, Key},
};

/// What becomes of the dependents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Propagation {
    Orphan,
    Background,
    Foreground,
}

/// The finalizer that stands for orphaning.
pub(super) const ORPHAN: &str = "orphan";
/// The finalizer that stands for waiting for the dependents.
pub(super) const FOREGROUND: &str = "foregroundDeletion";

/// Kubernetes' `DeleteOptions`.
#[derive(Clone, Debug, Default)]
pub(crate) struct DeleteOptions {
    grace: Option<i64>,
    propagation: Option<Propagation>,
    uid: Option<String>,
    version: Option<String>,
    dry_run: bool,
}

impl DeleteOptions {
    /// With background propagation.
    pub(crate) fn background() -> Self {
        Self { propagation: Some(Propagation::Background), ..Self::default() }
    }

    /// From a body, or from query parameters of the same names.
    ///
    /// # Errors
    /// 422 for a policy that there is not, or for two at once.
    pub(crate) fn read(options: &Value) -> ApiResult<Self> {
        let bad = |cause| ApiError::invalid(&DELETE_OPTIONS, "", &[cause]);
        let policy = match text(options, "/propagationPolicy") {
            "" => None,
            "Orphan" => Some(Propagation::Orphan),
            "Background" => Some(Propagation::Background),
            "Foreground" => Some(Propagation::Foreground),
            _ => {
                let value = options.get("propagationPolicy").unwrap_or(&Value::Null);
                let known = ["Foreground", "Background", "Orphan", "nil"];
                return Err(bad(Cause::unsupported("propagationPolicy", value, &known)));
            }
        };
        let orphan = options.get("orphanDependents").and_then(Value::as_bool);
        if let (Some(value), Some(_), Some(_)) = (options.get("propagationPolicy"), policy, orphan) {
            let why = "orphanDependents and deletionPropagation cannot be both set";
            return Err(bad(Cause::invalid("propagationPolicy", value, why)));
        }
        let old = orphan.map(|orphan| if orphan { Propagation::Orphan } else { Propagation::Background });
        let owned = |pointer| Some(text(options, pointer).to_owned()).filter(|text| !text.is_empty());
        Ok(Self {
            grace: options.get("gracePeriodSeconds").and_then(Value::as_i64),
            propagation: policy.or(old),
            uid: owned("/preconditions/uid"),
            version: owned("/preconditions/resourceVersion"),
            dry_run: has(options, "/dryRun/0"),
        })
    }

    fn check(&self, resource: &Resource, key: &Key, object: &Value) -> ApiResult<()> {
        let (found_uid, found_version) = (uid(object), version(object));
        if let Some(asked) = self.uid.as_deref().filter(|asked| *asked != found_uid) {
            let why = format!(
                "the UID in the precondition ({asked}) does not match the UID in record ({found_uid}). The object \
                 might have been deleted and then recreated"
            );
            return Err(ApiError::precondition(resource, &key.name, &why));
        }
        if let Some(asked) = self.version.as_deref().filter(|asked| *asked != found_version) {
            let why = format!(
                "the ResourceVersion in the precondition ({asked}) does not match the ResourceVersion in record \
                 ({found_version}). The object might have been modified"
            );
            return Err(ApiError::precondition(resource, &key.name, &why));
        }
        Ok(())
    }
}

/// What a delete came to.
pub(crate) enum Deleted {
    /// Gone.
    Gone(Arc<Value>),
    /// It waits for its grace, or for a finalizer.
    Marked(Arc<Value>),
}

/// Deletes an object, or marks it as being deleted.
///
/// # Errors
/// 404, and 409 where a precondition does not hold.
pub(crate) fn delete(
    inner: &mut Inner,
    resource: &'static Resource,
    key: &Key,
    options: &DeleteOptions,
) -> ApiResult<Deleted> {
    let old = inner.get(resource, key)?;
    options.check(resource, key, &old)?;
    if options.dry_run {
        return Ok(Deleted::Gone(old));
    }
    let default = if resource.kind == "Job" { Propagation::Orphan } else { Propagation::Background };
    let finalizers = with_propagation(&old, options.propagation, default);
    let grace = grace(resource, &old, options.grace);
    let is_namespace = resource.kind == "Namespace";
    if finalizers.is_empty() && grace == 0 && !is_namespace {
        // The end of its grace is an event of its own, before the last one.
        if number(&old, "/metadata/deletionGracePeriodSeconds") > 0 {
            inner.put(resource, key.clone(), mark(&old, finalizers, grace));
        }
        let gone = garbage::remove(inner, resource, key).unwrap_or(old);
        return Ok(Deleted::Gone(gone));
    }
    let mut new = mark(&old, finalizers, grace);
    if is_namespace {
        new = namespaces::terminating(new);
    }
    if new == *old {
        return Ok(Deleted::Marked(old));
    }
    let marked = inner.put(resource, key.clone(), new);
    match is_namespace {
        true => namespaces::empty(inner, &key.name),
        false => garbage::settle(inner, resource, key),
    }
    Ok(Deleted::Marked(marked))
}

/// Deletes all that is selected and returns it.
///
/// # Errors
/// 400 for a selector that cannot be parsed.
pub(crate) fn delete_collection(
    inner: &mut Inner,
    resource: &'static Resource,
    namespace: &str,
    list: &ListOptions,
    options: &DeleteOptions,
) -> ApiResult<Vec<Arc<Value>>> {
    let meant = super::list(inner, resource, namespace, list)?.items;
    for object in &meant {
        // What is gone by now went with its owner.
        let _ = delete(inner, resource, &Key::of(object), options);
    }
    Ok(meant)
}

fn with_propagation(object: &Value, asked: Option<Propagation>, default: Propagation) -> Vec<Value> {
    let mut kept = finalizers(object).to_vec();
    // A second delete that asks for nothing leaves the first one's wish alone.
    if asked.is_none() && is_being_deleted(object) {
        return kept;
    }
    kept.retain(|finalizer| finalizer != ORPHAN && finalizer != FOREGROUND);
    match asked.unwrap_or(default) {
        Propagation::Orphan => kept.push(ORPHAN.into()),
        Propagation::Foreground => kept.push(FOREGROUND.into()),
        Propagation::Background => {}
    }
    kept
}

/// How long the object stays. Only pods that run somewhere, and have not ended, are given time.
fn grace(resource: &Resource, object: &Value, asked: Option<i64>) -> i64 {
    let is_idle = text(object, "/spec/nodeName").is_empty()
        || ["Succeeded", "Failed"].contains(&text(object, "/status/phase"));
    if resource.kind != "Pod" || is_idle {
        return 0;
    }
    let wanted = asked.unwrap_or_else(|| number(object, "/spec/terminationGracePeriodSeconds")).max(0);
    match is_being_deleted(object) {
        // It can only be made shorter.
        true => wanted.min(number(object, "/metadata/deletionGracePeriodSeconds")),
        false => wanted,
    }
}

fn mark(object: &Value, finalizers: Vec<Value>, grace: i64) -> Value {
    let mut marked = object.clone();
    set(&mut marked, &["metadata"], "finalizers", finalizers);
    if crate::object::finalizers(&marked).is_empty() {
        crate::object::remove(&mut marked, &["metadata"], "finalizers");
    }
    let before = object.pointer("/metadata/deletionGracePeriodSeconds");
    if !is_being_deleted(object) || before != Some(&json!(grace)) {
        set(&mut marked, &["metadata"], "deletionTimestamp", after(grace));
        set(&mut marked, &["metadata"], "deletionGracePeriodSeconds", grace);
    }
    if !is_being_deleted(object) && has(object, "/metadata/generation") {
        set(&mut marked, &["metadata"], "generation", number(object, "/metadata/generation") + 1);
    }
    marked
}
