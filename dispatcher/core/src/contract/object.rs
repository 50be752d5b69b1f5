//! Kubernetes objects as the dispatcher decodes them: only the fields that it uses.

use std::{borrow::Cow, collections::BTreeMap};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use kube_core::{ApiResource, DynamicResourceScope, Resource};
use serde::{Deserialize, Deserializer};

/// An object with the used fields of its metadata, and with the types of its spec and status.
///
/// `managedFields` is skipped. It is half of a Job, and takes more memory than all the rest.
#[derive(Debug, Clone, Deserialize)]
pub struct Object<P, U> {
    /// The metadata.
    #[serde(deserialize_with = "used_metadata")]
    pub metadata: ObjectMeta,
    /// The spec.
    pub spec: P,
    /// The status.
    pub status: Option<U>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct UsedMetadata {
    annotations: Option<BTreeMap<String, String>>,
    creation_timestamp: Option<Time>,
    deletion_grace_period_seconds: Option<i64>,
    deletion_timestamp: Option<Time>,
    labels: Option<BTreeMap<String, String>>,
    name: Option<String>,
    namespace: Option<String>,
    owner_references: Option<Vec<OwnerReference>>,
    resource_version: Option<String>,
    uid: Option<String>,
}

fn used_metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    let used = UsedMetadata::deserialize(deserializer)?;
    Ok(ObjectMeta {
        annotations: used.annotations,
        creation_timestamp: used.creation_timestamp,
        deletion_grace_period_seconds: used.deletion_grace_period_seconds,
        deletion_timestamp: used.deletion_timestamp,
        labels: used.labels,
        name: used.name,
        namespace: used.namespace,
        owner_references: used.owner_references,
        resource_version: used.resource_version,
        uid: used.uid,
        ..ObjectMeta::default()
    })
}

impl<P, U> Resource for Object<P, U> {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(resource: &ApiResource) -> Cow<'_, str> {
        resource.kind.as_str().into()
    }

    fn group(resource: &ApiResource) -> Cow<'_, str> {
        resource.group.as_str().into()
    }

    fn version(resource: &ApiResource) -> Cow<'_, str> {
        resource.version.as_str().into()
    }

    fn plural(resource: &ApiResource) -> Cow<'_, str> {
        resource.plural.as_str().into()
    }

    fn api_version(resource: &ApiResource) -> Cow<'_, str> {
        resource.api_version.as_str().into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use kube_core::object::NotUsed;
    use serde_json::{Value, json};

    use super::*;

    type AnyObject = Object<NotUsed, Value>;

    /// The library's own decoding gives the expected metadata.
    #[test]
    fn metadata_is_that_of_the_library_without_managed_fields() {
        let used = json!({
            "name": "a", "namespace": "jobs", "uid": "u", "resourceVersion": "7",
            "creationTimestamp": "2026-11-25T01:22:58Z", "deletionTimestamp": "2026-11-25T01:23:00Z",
            "deletionGracePeriodSeconds": 30, "labels": {"a": "b"}, "annotations": {"c": "d"},
            "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": "a", "uid": "v",
                                 "controller": true}],
        });
        let mut sent = used.clone();
        sent["managedFields"] = json!([{"manager": "m", "fieldsV1": {"f:spec": {"f:suspend": {}}}}]);
        sent["unknown"] = json!({"x": [1]});
        let object =
            json!({"apiVersion": "v1", "kind": "K", "metadata": sent, "spec": {"x": 1}, "unknown": 2});
        let decoded: AnyObject = serde_json::from_value(object).unwrap();
        assert_eq!(decoded.metadata, serde_json::from_value::<ObjectMeta>(used).unwrap());
        assert_eq!(decoded.status, None);
    }

    #[test]
    fn absent_and_null_fields_are_equal_and_wrong_types_are_errors() {
        for metadata in [json!({}), json!({"name": null, "labels": null, "creationTimestamp": null})] {
            let decoded: AnyObject =
                serde_json::from_value(json!({"metadata": metadata, "spec": {}})).unwrap();
            assert_eq!(decoded.metadata, ObjectMeta::default());
        }
        for metadata in [json!(null), json!({"name": 1}), json!({"labels": {"a": 1}}), json!([1])] {
            assert!(serde_json::from_value::<AnyObject>(json!({"metadata": metadata, "spec": {}})).is_err());
        }
    }
}
