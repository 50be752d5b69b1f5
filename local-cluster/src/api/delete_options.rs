//! `DeleteOptions`: grace, propagation and preconditions.

use serde_json::Value;

use crate::{
    error::{ApiError, ApiResult, Cause},
    object::{has, text, uid, version},
    resource::{DELETE_OPTIONS, Resource},
    store::Key,
};

/// The treatment of an object's dependents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Propagation {
    Orphan,
    Background,
    Foreground,
}

/// Kubernetes' `DeleteOptions`.
#[derive(Clone, Debug, Default)]
pub(crate) struct DeleteOptions {
    pub(super) grace: Option<i64>,
    pub(super) propagation: Option<Propagation>,
    uid: Option<String>,
    version: Option<String>,
    pub(super) dry_run: bool,
}

impl DeleteOptions {
    /// Options with background propagation.
    pub(crate) fn background() -> Self {
        Self { propagation: Some(Propagation::Background), ..Self::default() }
    }

    /// Parses a request body.
    ///
    /// # Errors
    /// 422 for an unknown propagation policy, or for two conflicting ones.
    pub(crate) fn parse(options: &Value) -> ApiResult<Self> {
        let invalid = |cause| ApiError::invalid(&DELETE_OPTIONS, "", &[cause]);
        let policy = match text(options, "/propagationPolicy") {
            "" => None,
            "Orphan" => Some(Propagation::Orphan),
            "Background" => Some(Propagation::Background),
            "Foreground" => Some(Propagation::Foreground),
            _ => {
                let value = options.get("propagationPolicy").unwrap_or(&Value::Null);
                let known = ["Foreground", "Background", "Orphan", "nil"];
                return Err(invalid(Cause::unsupported("propagationPolicy", value, &known)));
            }
        };
        let orphan = options.get("orphanDependents").and_then(Value::as_bool);
        if let (Some(value), Some(_), Some(_)) = (options.get("propagationPolicy"), policy, orphan) {
            let why = "orphanDependents and deletionPropagation cannot be both set";
            return Err(invalid(Cause::invalid("propagationPolicy", value, why)));
        }
        let legacy = orphan.map(|orphan| if orphan { Propagation::Orphan } else { Propagation::Background });
        let non_empty = |pointer| Some(text(options, pointer).to_owned()).filter(|text| !text.is_empty());
        Ok(Self {
            grace: options.get("gracePeriodSeconds").and_then(Value::as_i64),
            propagation: policy.or(legacy),
            uid: non_empty("/preconditions/uid"),
            version: non_empty("/preconditions/resourceVersion"),
            dry_run: has(options, "/dryRun/0"),
        })
    }

    /// Checks the preconditions.
    ///
    /// # Errors
    /// 409 if one does not hold.
    pub(super) fn check(&self, resource: &Resource, key: &Key, object: &Value) -> ApiResult<()> {
        let (found_uid, found_version) = (uid(object), version(object));
        if let Some(expected) = self.uid.as_deref().filter(|expected| *expected != found_uid) {
            let why = format!(
                "the UID in the precondition ({expected}) does not match the UID in record ({found_uid}). The object \
                 might have been deleted and then recreated"
            );
            return Err(ApiError::precondition_failed(resource, &key.name, &why));
        }
        if let Some(expected) = self.version.as_deref().filter(|expected| *expected != found_version) {
            let why = format!(
                "the ResourceVersion in the precondition ({expected}) does not match the ResourceVersion in record \
                 ({found_version}). The object might have been modified"
            );
            return Err(ApiError::precondition_failed(resource, &key.name, &why));
        }
        Ok(())
    }
}
