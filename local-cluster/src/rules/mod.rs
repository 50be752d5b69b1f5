//! Defaults and validation of objects. Pure.

mod fields;
mod job;
mod job_status;
mod metadata;
mod pod;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    error::{ApiError, ApiResult, Cause},
    object::default,
    resource::Resource,
};

/// Drops unknown fields.
///
/// # Errors
/// 400 if a field has the wrong type.
pub(crate) fn normalize(resource: &Resource, object: Value) -> ApiResult<Value> {
    let known = typed(resource, object)?;
    Ok(if resource.kind == "Job" { job::strip_zero_counters(known) } else { known })
}

/// The paths of the fields that the resource does not have, in an object or in a patch that looks
/// like one. Empty if a field has the wrong type, since the write itself reports that.
pub(crate) fn unknown_fields(resource: &Resource, body: &Value) -> Vec<String> {
    typed(resource, body.clone()).map(|known| fields::unknown(body, &known)).unwrap_or_default()
}

/// The fields that the resource has.
fn typed(resource: &Resource, object: Value) -> ApiResult<Value> {
    use k8s_openapi::api::{batch::v1 as batch, coordination::v1 as coordination, core::v1 as core};
    match resource.kind {
        "Job" => roundtrip::<batch::Job>(resource, object),
        "Pod" => roundtrip::<core::Pod>(resource, object),
        "Event" => roundtrip::<core::Event>(resource, object),
        "Namespace" => roundtrip::<core::Namespace>(resource, object),
        "Lease" => roundtrip::<coordination::Lease>(resource, object),
        "ServiceAccount" => roundtrip::<core::ServiceAccount>(resource, object),
        _ => Ok(object),
    }
}

fn roundtrip<T: DeserializeOwned + serde::Serialize>(resource: &Resource, object: Value) -> ApiResult<Value> {
    let read = serde_json::from_value::<T>(object).and_then(|typed| serde_json::to_value(&typed));
    read.map_err(|error| {
        let (kind, version) = (resource.kind, resource.version);
        ApiError::bad_request(format!(
            "{kind} in version \"{version}\" cannot be handled as a {kind}: json: {error}"
        ))
    })
}

/// Sets the defaults of absent fields.
pub(crate) fn set_defaults(resource: &Resource, object: &mut Value) {
    match resource.kind {
        "Job" => job::set_defaults(object),
        "Pod" => object.get_mut("spec").into_iter().for_each(pod::set_spec_defaults),
        "Namespace" => default(object, &["spec"], "finalizers", serde_json::json!(["kubernetes"])),
        _ => {}
    }
}

/// Sets the fields of a new object that only the server decides. The object has its uid.
pub(crate) fn prepare(resource: &Resource, object: &mut Value) {
    match resource.kind {
        "Job" => job::prepare(object),
        "Pod" => default(object, &["status"], "phase", "Pending"),
        "Namespace" => default(object, &["status"], "phase", "Active"),
        _ => {}
    }
}

/// Validates a new object.
pub(crate) fn validate(resource: &Resource, object: &Value) -> Vec<Cause> {
    let mut causes = metadata::validate_metadata(resource, object);
    match resource.kind {
        "Job" => causes.extend(job::validate(object)),
        "Pod" => causes.extend(pod::validate_spec(object.get("spec"), "spec")),
        _ => {}
    }
    causes
}

/// Validates an update of an object.
pub(crate) fn validate_update(resource: &Resource, old: &Value, new: &Value) -> Vec<Cause> {
    let mut causes = metadata::validate_metadata(resource, new);
    for field in ["uid", "name", "namespace", "creationTimestamp", "deletionTimestamp"] {
        let pointer = format!("/metadata/{field}");
        if old.pointer(&pointer) != new.pointer(&pointer) {
            let value = new.pointer(&pointer).unwrap_or(&Value::Null);
            causes.push(Cause::immutable(format!("metadata.{field}"), value));
        }
    }
    match resource.kind {
        "Job" => causes.extend(job::validate_update(old, new)),
        "Pod" => causes.extend(pod::validate_update(old, new)),
        _ => {}
    }
    causes
}

/// Validates an update of an object's status.
pub(crate) fn validate_status(resource: &Resource, old: &Value, new: &Value) -> Vec<Cause> {
    match resource.kind {
        "Job" => job_status::validate_update(old, new),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::resource::{JOBS, PODS};

    #[test]
    fn unknown_fields_are_found_with_their_paths() {
        let job = json!({"metadata": {"name": "a", "creationTimestamp": null}, "spec": {"backofLimit": 1,
            "template": {"spec": {"restartPolicy": "Never", "containers": [
                {"name": "c", "image": "i"},
                {"name": "d", "imagee": "i", "env": [{"name": "A", "vlaue": "1"}]},
            ]}}}, "extra": {}});
        assert_eq!(
            unknown_fields(&JOBS, &job),
            [
                "extra",
                "spec.backofLimit",
                "spec.template.spec.containers[1].env[0].vlaue",
                "spec.template.spec.containers[1].imagee",
            ]
        );
    }

    #[test]
    fn known_fields_and_directives_of_patches_are_no_unknown_fields() {
        for (resource, body) in [
            (
                &JOBS,
                json!({"apiVersion": "batch/v1", "kind": "Job", "spec": {"template": {"spec": {
                "containers": [], "nodeSelector": {"any": "label"}}}}, "status": {"active": 0}}),
            ),
            (
                &JOBS,
                json!({"metadata": {"annotations": {"a": "b", "gone": null}}, "spec": {"$retainKeys": ["a"]}}),
            ),
            (
                &PODS,
                json!({"spec": {"containers": [{"$patch": "delete", "name": "c"}],
                "$setElementOrder/containers": [{"name": "c"}]}}),
            ),
            (&PODS, json!({"spec": {"containers": "wrong type", "unknown": 1}})),
        ] {
            assert_eq!(unknown_fields(resource, &body), Vec::<String>::new(), "{body}");
        }
    }
}
