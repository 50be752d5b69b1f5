//! What admission control changed in the metadata of a created Job, and the patch that restores it.
//!
//! The watches select Jobs by these labels, and the annotations identify the request.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{
    contract::{
        PREFIX,
        job::{
            ANNOTATION_OUTCOME_RECORD, ANNOTATION_REQUEST_HASH, ANNOTATION_REQUEST_ID,
            ANNOTATION_REQUEST_SEQ, JobObject, LABEL_MANAGED_BY, LABEL_NAME, LABEL_OUTCOME, LABEL_TEMPLATE,
            MANAGED_BY, OutcomeLabel,
        },
        names::TemplateName,
    },
    request::Identity,
};

/// The changed metadata of a Job.
#[derive(Debug, Clone, PartialEq)]
pub struct Changes {
    /// The changed labels and annotations.
    pub keys: Vec<String>,
    /// The JSON merge patch that restores them.
    pub patch: Value,
}

/// The dispatcher's labels and annotations that differ between `sent` and `found`; `None` if all are
/// equal.
#[must_use]
pub fn changes(sent: &Value, found: &JobObject) -> Option<Changes> {
    let sent = |pointer: &str| -> Option<Texts> {
        sent.pointer(pointer).and_then(|map| Texts::deserialize(map).ok())
    };
    let labels = differences(sent("/metadata/labels").as_ref(), found.metadata.labels.as_ref());
    let annotations =
        differences(sent("/metadata/annotations").as_ref(), found.metadata.annotations.as_ref());
    patch_of(&labels, &annotations, found)
}

/// Whether the Job is of a request: it has the request's id, or lost it and has the sequence and hash.
#[must_use]
pub fn is_of_request(found: &JobObject, identity: &Identity, hash: Option<&str>) -> bool {
    let annotation = |key: &str| found.metadata.annotations.as_ref()?.get(key).map(String::as_str);
    match annotation(ANNOTATION_REQUEST_ID) {
        Some(id) => id == identity.id.as_ref(),
        None => {
            hash.is_some()
                && annotation(ANNOTATION_REQUEST_HASH) == hash
                && annotation(ANNOTATION_REQUEST_SEQ) == Some(&identity.sequence.to_string())
        }
    }
}

/// What a Job that an earlier delivery created has lost of the metadata that identifies it. Keys
/// of another delivery of the same request stay. An outcome label without a record of the Job goes:
/// it would hide the Job from the watches.
#[must_use]
pub fn lost(
    template: &TemplateName,
    identity: &Identity,
    hash: Option<&str>,
    found: &JobObject,
) -> Option<Changes> {
    let metadata = &found.metadata;
    let value = |map: Option<&Texts>, key: &str| map.and_then(|map| map.get(key)).cloned();
    let template = template.to_string();
    let labels = [(LABEL_MANAGED_BY, MANAGED_BY), (LABEL_NAME, &template), (LABEL_TEMPLATE, &template)];
    let labels = labels.into_iter().filter(|(key, expected)| {
        value(metadata.labels.as_ref(), key).is_none_or(|found| found != *expected)
    });
    let sequence = identity.sequence.to_string();
    let annotations = [
        (ANNOTATION_REQUEST_ID, Some(identity.id.as_ref())),
        (ANNOTATION_REQUEST_SEQ, Some(sequence.as_str())),
        (ANNOTATION_REQUEST_HASH, hash),
    ];
    let annotations = annotations.into_iter().filter_map(|(key, expected)| {
        let found = value(metadata.annotations.as_ref(), key);
        let is_valid = found.is_some_and(|found| match key {
            ANNOTATION_REQUEST_SEQ => found.parse::<u64>().is_ok(),
            ANNOTATION_REQUEST_ID => found == identity.id.as_ref(),
            _ => true,
        });
        expected.filter(|_| !is_valid).map(|expected| (key, expected))
    });
    let map = |(key, value): (&str, &str)| (key.to_owned(), Value::from(value));
    let (mut labels, mut annotations) = (labels.map(map).collect(), annotations.map(map).collect());
    if OutcomeLabel::of(metadata) == OutcomeLabel::Unbound {
        remove_label(&mut labels, &mut annotations, metadata.annotations.as_ref());
    }
    patch_of(&labels, &annotations, found)
}

fn remove_label(
    labels: &mut Map<String, Value>,
    annotations: &mut Map<String, Value>,
    found: Option<&Texts>,
) {
    labels.insert(LABEL_OUTCOME.to_owned(), Value::Null);
    if found.is_some_and(|found| found.contains_key(ANNOTATION_OUTCOME_RECORD)) {
        annotations.insert(ANNOTATION_OUTCOME_RECORD.to_owned(), Value::Null);
    }
}

fn patch_of(
    labels: &Map<String, Value>,
    annotations: &Map<String, Value>,
    found: &JobObject,
) -> Option<Changes> {
    if labels.is_empty() && annotations.is_empty() {
        return None;
    }
    let keys = labels.keys().map(|key| format!("label {key}"));
    let keys = keys.chain(annotations.keys().map(|key| format!("annotation {key}"))).collect();
    let metadata = json!({"uid": found.metadata.uid, "labels": labels, "annotations": annotations});
    Some(Changes { keys, patch: json!({ "metadata": metadata }) })
}

type Texts = BTreeMap<String, String>;

/// The value to restore for each key, `null` for a key to remove.
fn differences(sent: Option<&Texts>, found: Option<&Texts>) -> Map<String, Value> {
    let value = |map: Option<&Texts>, key: &str| map.and_then(|map| map.get(key)).cloned();
    let keys = sent.into_iter().chain(found).flat_map(BTreeMap::keys).filter(|key| is_own(key));
    keys.filter(|key| value(sent, key) != value(found, key))
        .map(|key| (key.clone(), value(sent, key).into()))
        .collect()
}

fn is_own(key: &str) -> bool {
    key.starts_with(PREFIX) || key == LABEL_MANAGED_BY || key == LABEL_NAME
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent() -> Value {
        json!({"metadata": {"name": "a",
            "labels": {"app.kubernetes.io/managed-by": "dispatcher", "app.kubernetes.io/name": "simple",
                       "natsjobs.dev/template": "simple", "team": "x"},
            "annotations": {"natsjobs.dev/request-id": "i", "example.org/a": "b"}}})
    }

    fn found(labels: Value, annotations: Value) -> JobObject {
        let metadata = json!({"name": "a", "uid": "u", "labels": labels, "annotations": annotations});
        serde_json::from_value(json!({"metadata": metadata, "spec": {}})).unwrap()
    }

    fn intact() -> (Value, Value) {
        let sent = sent();
        (sent["metadata"]["labels"].clone(), sent["metadata"]["annotations"].clone())
    }

    #[test]
    fn intact_job_needs_no_patch() {
        let (mut labels, mut annotations) = intact();
        assert_eq!(changes(&sent(), &found(labels.clone(), annotations.clone())), None);
        // Other keys belong to the platform.
        labels["team"] = "changed".into();
        labels["platform.example.org/stamp"] = "x".into();
        annotations["example.org/a"] = "changed".into();
        assert_eq!(changes(&sent(), &found(labels, annotations)), None);
    }

    fn identity() -> Identity {
        Identity { id: "i".to_owned().try_into().unwrap(), client_supplied: true, sequence: 7 }
    }

    #[test]
    fn job_of_a_request_is_recognized_without_its_id_but_never_with_another_one() {
        let of = |annotations| is_of_request(&found(json!({}), annotations), &identity(), Some("h"));
        let (id, seq, hash) =
            ("natsjobs.dev/request-id", "natsjobs.dev/request-seq", "natsjobs.dev/request-hash");
        assert!(of(json!({id: "i"})) && of(json!({seq: "7", hash: "h"})));
        for other in [
            json!({id: "x", seq: "7", hash: "h"}),
            json!({seq: "8", hash: "h"}),
            json!({seq: "7", hash: "x"}),
            json!({seq: "7"}),
            json!({}),
        ] {
            assert!(!of(other.clone()), "{other}");
        }
    }

    #[test]
    fn lost_metadata_is_completed_and_that_of_another_delivery_kept() {
        let template = TemplateName::try_from("simple".to_owned()).unwrap();
        let (labels, _) = intact();
        let annotations = json!({"natsjobs.dev/request-id": "i", "natsjobs.dev/request-seq": "3",
                                 "natsjobs.dev/request-hash": "h"});
        let lost = |labels, annotations| lost(&template, &identity(), Some("h"), &found(labels, annotations));
        assert_eq!(lost(labels.clone(), annotations.clone()), None);
        let stripped = lost(json!({"app.kubernetes.io/managed-by": "platform"}), json!({})).unwrap();
        assert_eq!(stripped.patch["metadata"]["labels"].as_object().unwrap().len(), 3);
        assert_eq!(stripped.patch["metadata"]["annotations"]["natsjobs.dev/request-seq"], "7");
        assert_eq!(stripped.keys.len(), 6);
    }

    #[test]
    fn outcome_label_of_another_job_is_removed_and_that_of_the_job_stays() {
        let template = TemplateName::try_from("simple".to_owned()).unwrap();
        let (mut labels, _) = intact();
        labels["natsjobs.dev/outcome"] = "Complete".into();
        let annotations = |record: Option<&str>| {
            let mut all = json!({"natsjobs.dev/request-id": "i", "natsjobs.dev/request-seq": "7",
                                 "natsjobs.dev/request-hash": "h"});
            record.into_iter().for_each(|record| all["natsjobs.dev/outcome-record"] = record.into());
            all
        };
        let patch = |record| {
            let found = found(labels.clone(), annotations(record));
            lost(&template, &identity(), Some("h"), &found).map(|changes| changes.patch["metadata"].clone())
        };
        let removed = json!({"natsjobs.dev/outcome": null});
        assert_eq!(patch(None), Some(json!({"uid": "u", "labels": removed, "annotations": {}})));
        let record = json!({"natsjobs.dev/outcome-record": null});
        for other in ["another/17", "u/", ""] {
            assert_eq!(
                patch(Some(other)),
                Some(json!({"uid": "u", "labels": removed, "annotations": record}))
            );
        }
        assert_eq!(patch(Some("u/17")), None);
    }

    #[test]
    fn changed_removed_and_added_keys_are_restored() {
        let (labels, annotations) = intact();
        for (key, value) in [
            ("app.kubernetes.io/managed-by", json!("platform")),
            ("app.kubernetes.io/name", json!("other")),
            ("natsjobs.dev/template", json!("other")),
            ("natsjobs.dev/template", Value::Null),
        ] {
            let mut changed = labels.clone();
            let expected = changed[key].clone();
            match value.is_null() {
                true => drop(changed.as_object_mut().unwrap().remove(key)),
                false => changed[key] = value,
            }
            let changes = changes(&sent(), &found(changed, annotations.clone())).unwrap();
            assert_eq!(changes.keys, [format!("label {key}")]);
            let patch = json!({"metadata": {"uid": "u", "labels": {key: expected}, "annotations": {}}});
            assert_eq!(changes.patch, patch);
        }
        // A Job that is born with an outcome label would be in no watch.
        let mut retired = labels.clone();
        retired["natsjobs.dev/outcome"] = "Complete".into();
        let restored = changes(&sent(), &found(retired, annotations)).unwrap();
        assert_eq!(restored.patch["metadata"]["labels"], json!({"natsjobs.dev/outcome": null}));
        let all = changes(&sent(), &found(Value::Null, Value::Null)).unwrap();
        assert_eq!(all.keys.len(), 4, "{:?}", all.keys);
    }
}
