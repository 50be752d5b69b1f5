//! An existing Job as a canary: the Job to create in a dry run, to find out if Jobs can be created.

use k8s_openapi::api::batch::v1::Job;

/// Labels that the Job controller sets on pods, for one Job.
const OF_ONE_JOB: [&str; 4] =
    ["controller-uid", "job-name", "batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-name"];

/// The Job as it was created: without the fields that the API server and the controller set.
#[must_use]
pub fn canary_of(mut job: Job) -> Job {
    job.status = None;
    let metadata = &mut job.metadata;
    (metadata.uid, metadata.resource_version, metadata.self_link) = (None, None, None);
    (metadata.creation_timestamp, metadata.deletion_timestamp) = (None, None);
    (metadata.generation, metadata.deletion_grace_period_seconds) = (None, None);
    (metadata.managed_fields, metadata.owner_references, metadata.finalizers) = (None, None, None);
    if let Some(spec) = &mut job.spec {
        let manual = spec.manual_selector == Some(true);
        if !manual {
            spec.selector = None;
            let labels = spec.template.metadata.as_mut().and_then(|metadata| metadata.labels.as_mut());
            if let Some(labels) = labels {
                labels.retain(|key, _| !OF_ONE_JOB.contains(&key.as_str()));
            }
        }
    }
    job
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn canary_has_no_field_of_the_server() {
        let pod = json!({"restartPolicy": "Never", "containers": [{"name": "a", "image": "a"}]});
        let job = serde_json::from_value(json!({
            "metadata": {"name": "a", "namespace": "n", "uid": "u", "resourceVersion": "7", "generation": 1,
                         "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"natsjobs.dev/template": "t"},
                         "ownerReferences": [{"apiVersion": "v1", "kind": "K", "name": "o", "uid": "o"}],
                         "managedFields": [{"manager": "dispatcher"}]},
            "spec": {"backoffLimit": 2, "selector": {"matchLabels": {"batch.kubernetes.io/controller-uid": "u"}},
                     "template": {"metadata": {"labels": {"batch.kubernetes.io/controller-uid": "u",
                                  "controller-uid": "u", "job-name": "a", "app": "x"}}, "spec": pod.clone()}},
            "status": {"active": 1}}))
        .unwrap();
        let expected = json!({"apiVersion": "batch/v1", "kind": "Job",
            "metadata": {"name": "a", "namespace": "n", "labels": {"natsjobs.dev/template": "t"}},
            "spec": {"backoffLimit": 2, "template": {"metadata": {"labels": {"app": "x"}}, "spec": pod}}});
        assert_eq!(serde_json::to_value(canary_of(job)).unwrap(), expected);
    }
}
