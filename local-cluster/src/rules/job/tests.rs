use serde_json::{Value, json};

use super::*;

fn job() -> Value {
    json!({"metadata": {"name": "j", "uid": "u"}, "spec": {"template": {"spec": {
        "restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}})
}

fn with_defaults(change: Value) -> Value {
    let mut job = job();
    json_patch::merge(&mut job, &change);
    set_defaults(&mut job);
    prepare(&mut job);
    job
}

fn causes(job: &Value) -> Vec<String> {
    validate(job).iter().map(ToString::to_string).collect()
}

fn update(change: Value) -> Vec<String> {
    let old = with_defaults(json!({}));
    let mut new = old.clone();
    json_patch::merge(&mut new, &change);
    validate_update(&old, &new).iter().map(ToString::to_string).collect()
}

#[test]
fn defaults_are_set() {
    let job = with_defaults(json!({}));
    let spec = &job["spec"];
    assert_eq!(
        (&spec["completions"], &spec["parallelism"], &spec["backoffLimit"]),
        (&json!(1), &json!(1), &json!(6))
    );
    assert_eq!((&spec["completionMode"], &spec["suspend"]), (&json!("NonIndexed"), &json!(false)));
    assert_eq!(spec["selector"], json!({"matchLabels": {"batch.kubernetes.io/controller-uid": "u"}}));
    let labels = json!({"controller-uid": "u", "batch.kubernetes.io/controller-uid": "u", "job-name": "j",
        "batch.kubernetes.io/job-name": "j"});
    assert_eq!(spec["template"]["metadata"]["labels"], labels);
    assert_eq!(causes(&job), Vec::<String>::new());
    let queue = with_defaults(json!({"spec": {"parallelism": 3}}));
    assert_eq!((&queue["spec"]["completions"], &queue["spec"]["parallelism"]), (&Value::Null, &json!(3)));
}

#[test]
fn job_without_labels_receives_those_of_its_template() {
    let job = with_defaults(json!({"spec": {"template": {"metadata": {"labels": {"a": "b"}}}}}));
    assert_eq!(job["metadata"]["labels"], job["spec"]["template"]["metadata"]["labels"]);
    assert_eq!(job["metadata"]["labels"]["a"], "b");
    let own = with_defaults(json!({"metadata": {"labels": {"c": "d"}}}));
    assert_eq!(own["metadata"]["labels"], json!({"c": "d"}));
}

#[test]
fn invalid_fields_are_reported() {
    for (change, message) in [
        (
            json!({"restartPolicy": null}),
            "spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\"",
        ),
        (
            json!({"restartPolicy": "Always"}),
            "spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\"",
        ),
        (json!({"containers": []}), "spec.template.spec.containers: Required value"),
        (json!({"containers": [{"name": "c"}]}), "spec.template.spec.containers[0].image: Required value"),
        (
            json!({"containers": [{"name": "C", "image": "i"}]}),
            "spec.template.spec.containers[0].name: Invalid value: \"C\": ",
        ),
    ] {
        let causes = causes(&with_defaults(json!({"spec": {"template": {"spec": change}}})));
        assert!(causes.len() == 1 && causes[0].starts_with(message), "{causes:?}");
    }
    let negative = with_defaults(json!({"spec": {"backoffLimit": -1, "completionMode": "Other"}}));
    assert_eq!(causes(&negative).len(), 2);
    let long = with_defaults(json!({"metadata": {"name": "a".repeat(64)}}));
    assert!(causes(&long)[0].ends_with("must be no more than 63 bytes"));
    let indexed = with_defaults(json!({"spec": {"completionMode": "Indexed", "parallelism": 2}}));
    assert_eq!(causes(&indexed), ["spec.completions: Required value: when completion mode is Indexed"]);
}

#[test]
fn only_mutable_fields_may_change() {
    for allowed in [
        json!({"spec": {"parallelism": 2}}),
        json!({"spec": {"suspend": true, "ttlSecondsAfterFinished": 5, "backoffLimit": 1}}),
        json!({"metadata": {"labels": {"a": "b"}}}),
    ] {
        assert_eq!(update(allowed), Vec::<String>::new());
    }
    for forbidden in [
        json!({"spec": {"template": {"spec": {"restartPolicy": "OnFailure"}}}}),
        json!({"spec": {"template": {"spec": {"nodeSelector": {"a": "b"}}}}}),
        json!({"spec": {"completions": 2}}),
        json!({"spec": {"selector": {"matchLabels": {"a": "b"}}}}),
    ] {
        let causes = update(forbidden);
        assert!(causes.len() == 1 && causes[0].ends_with(": field is immutable"), "{causes:?}");
    }
}

#[test]
fn suspended_job_may_change_its_scheduling() {
    let old = with_defaults(json!({"spec": {"suspend": true}}));
    let mut new = old.clone();
    json_patch::merge(&mut new, &json!({"spec": {"template": {"spec": {"nodeSelector": {"a": "b"}}}}}));
    assert_eq!(validate_update(&old, &new), []);
}
