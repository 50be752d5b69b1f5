//! An existing Job as a canary: the Job to create in a dry run, to find out if Jobs can be created.

use serde_json::{Map, Value};

/// Labels that the Job controller sets on pods, for one Job.
const OF_ONE_JOB: [&str; 4] =
    ["controller-uid", "job-name", "batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-name"];

/// The metadata that a client sets.
const OF_CLIENT: [&str; 4] = ["name", "namespace", "labels", "annotations"];

/// The Job as it was created: without the fields that the API server and the controller set.
#[must_use]
pub fn canary_of(mut job: Value) -> Value {
    if let Some(job) = job.as_object_mut() {
        job.remove("status");
        job.insert("apiVersion".to_owned(), "batch/v1".into());
        job.insert("kind".to_owned(), "Job".into());
    }
    if let Some(metadata) = map(&mut job, "/metadata") {
        metadata.retain(|key, _| OF_CLIENT.contains(&key.as_str()));
    }
    if job.pointer("/spec/manualSelector") != Some(&Value::Bool(true)) {
        if let Some(spec) = map(&mut job, "/spec") {
            spec.remove("selector");
        }
        if let Some(labels) = map(&mut job, "/spec/template/metadata/labels") {
            labels.retain(|key, _| !OF_ONE_JOB.contains(&key.as_str()));
        }
    }
    job
}

fn map<'a>(job: &'a mut Value, pointer: &str) -> Option<&'a mut Map<String, Value>> {
    job.pointer_mut(pointer).and_then(Value::as_object_mut)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn canary_has_no_field_of_the_server() {
        let pod = json!({"restartPolicy": "Never", "containers": [{"name": "a", "image": "a"}]});
        let job = json!({
            "metadata": {"name": "a", "namespace": "n", "uid": "u", "resourceVersion": "7", "generation": 1,
                         "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"natsjobs.dev/template": "t"},
                         "ownerReferences": [{"apiVersion": "v1", "kind": "K", "name": "o", "uid": "o"}],
                         "managedFields": [{"manager": "dispatcher"}]},
            "spec": {"backoffLimit": 2, "selector": {"matchLabels": {"batch.kubernetes.io/controller-uid": "u"}},
                     "template": {"metadata": {"labels": {"batch.kubernetes.io/controller-uid": "u",
                                  "controller-uid": "u", "job-name": "a", "app": "x"}}, "spec": pod.clone()}},
            "status": {"active": 1}});
        let expected = json!({"apiVersion": "batch/v1", "kind": "Job",
            "metadata": {"name": "a", "namespace": "n", "labels": {"natsjobs.dev/template": "t"}},
            "spec": {"backoffLimit": 2, "template": {"metadata": {"labels": {"app": "x"}}, "spec": pod}}});
        assert_eq!(canary_of(job), expected);
    }
}
