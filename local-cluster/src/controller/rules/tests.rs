use k8s_openapi::jiff::SignedDuration;
use serde_json::{Value, json};

use super::{model::Model, *};
use crate::controller::pods::FINALIZER;

/// Summarizes a status without times and zero counters.
fn summary(status: &Value) -> String {
    let number = |field: &str| status[field].as_i64().map(|value| format!("{field}:{value}"));
    let mut parts: Vec<String> =
        ["active", "ready", "terminating", "succeeded", "failed"].into_iter().filter_map(number).collect();
    let uncounted = &status["uncountedTerminatedPods"];
    parts.extend(
        ["succeeded", "failed"]
            .iter()
            .filter(|field| uncounted[**field].is_array())
            .map(|field| format!("uncounted {field}")),
    );
    let conditions = status["conditions"].as_array().into_iter().flatten();
    parts.extend(conditions.map(|condition| {
        format!("{}={}", condition["type"].as_str().unwrap(), condition["status"].as_str().unwrap())
    }));
    parts.join(" ")
}

#[test]
fn successful_job_passes_each_status() {
    let mut model = Model::new(json!({}));
    model.sync_until_stable().run().sync_until_stable().advance(2).end(true).sync_until_stable();
    let written: Vec<_> = model.written.iter().map(summary).collect();
    assert_eq!(
        written,
        [
            "active:1 ready:0 terminating:0",
            "active:1 ready:1 terminating:0",
            "ready:0 terminating:0 uncounted succeeded SuccessCriteriaMet=True",
            "ready:0 terminating:0 succeeded:1 SuccessCriteriaMet=True Complete=True",
        ]
    );
    let conditions = model.status().conditions.unwrap();
    assert!(
        conditions.iter().all(
            |condition| condition.message.as_deref() == Some("Reached expected number of succeeded pods")
        )
    );
    assert_eq!(model.reasons(), ["SuccessCriteriaMet/CompletionsReached", "Complete/CompletionsReached"]);
    assert_eq!(model.status().completion_time.unwrap().0, model.now);
    assert_eq!((model.pods.len(), pods::is_tracked(&model.pods[0])), (1, false));
}

#[test]
fn interim_condition_precedes_the_final_one_without_pods() {
    let mut model = Model::new(json!({"completions": 0, "parallelism": 1}));
    model.sync_until_stable();
    let written: Vec<_> = model.written.iter().map(summary).collect();
    assert_eq!(
        written,
        [
            "ready:0 terminating:0 SuccessCriteriaMet=True",
            "ready:0 terminating:0 SuccessCriteriaMet=True Complete=True"
        ]
    );
}

#[test]
fn interrupted_sync_counts_no_pod_twice() {
    let mut model = Model::new(json!({"completions": 2, "parallelism": 2}));
    model.sync_until_stable().end(true);
    model.sync_partially(false);
    model.sync_partially(false);
    model.sync_until_stable();
    assert_eq!(model.status().succeeded, Some(1));
}

#[test]
fn job_fails_after_its_last_attempt_with_doubling_backoff() {
    let mut model = Model::new(json!({"backoffLimit": 3}));
    model.sync_until_stable();
    for wait in [10, 20, 40] {
        model.advance(1).end(false).sync_until_stable();
        assert_eq!(model.active().len(), 0);
        let plan = reconcile(&model.job, &model.pods, model.now, 1.0);
        assert_eq!(plan.requeue_at, model.now.checked_add(SignedDuration::from_secs(wait)).ok());
        model.advance(wait - 1).sync_until_stable();
        assert_eq!(model.active().len(), 0, "before {wait} s");
        model.advance(1).sync_until_stable();
        assert_eq!(model.active().len(), 1, "after {wait} s");
    }
    model.written.clear();
    model.advance(1).end(false).sync_until_stable();
    let written: Vec<_> = model.written.iter().map(summary).collect();
    assert_eq!(
        written,
        [
            "ready:0 terminating:0 failed:3 uncounted failed FailureTarget=True",
            "ready:0 terminating:0 failed:4 FailureTarget=True Failed=True",
        ]
    );
    assert_eq!(model.reasons(), ["FailureTarget/BackoffLimitExceeded", "Failed/BackoffLimitExceeded"]);
    assert_eq!(model.pods.len(), 4);
    assert!(model.status().completion_time.is_none());
}

#[test]
fn deadline_ends_the_pods_before_the_job() {
    let mut model = Model::new(json!({"activeDeadlineSeconds": 5}));
    model.sync_until_stable().run().sync_until_stable();
    assert_eq!(
        reconcile(&model.job, &model.pods, model.now, 1.0).requeue_at,
        model.now.checked_add(SignedDuration::from_secs(5)).ok()
    );
    model.advance(5).sync_until_stable();
    assert_eq!(model.reasons(), ["FailureTarget/DeadlineExceeded"]);
    let status = model.status();
    assert_eq!((status.active, status.failed, status.terminating), (None, Some(1), Some(1)));
    model.remove_retained().sync_until_stable();
    assert_eq!(model.reasons(), ["FailureTarget/DeadlineExceeded", "Failed/DeadlineExceeded"]);
    let message = model.status().conditions.unwrap()[1].message.clone();
    assert_eq!(message.as_deref(), Some("Job was active longer than specified deadline"));
}

#[test]
fn resumed_job_restarts_with_new_pods() {
    let mut model = Model::new(json!({"activeDeadlineSeconds": 50}));
    model.sync_until_stable().run().sync_until_stable().advance(40);
    model.job.spec.as_mut().unwrap().suspend = Some(true);
    model.sync_until_stable();
    assert_eq!(model.reasons(), ["Suspended/JobSuspended"]);
    let status = model.status();
    assert_eq!(
        (status.active, status.failed, status.terminating, status.start_time),
        (None, None, Some(1), None)
    );
    model.remove_retained().advance(60).sync_until_stable();
    model.job.spec.as_mut().unwrap().suspend = Some(false);
    model.sync_until_stable();
    let status = model.status();
    assert_eq!((status.active, status.start_time.unwrap().0), (Some(1), model.now));
    let condition = &status.conditions.unwrap()[0];
    assert_eq!((condition.status.as_str(), condition.message.as_deref()), ("False", Some("Job resumed")));
}

#[test]
fn job_of_another_manager_is_ignored() {
    let mut model = Model::new(json!({"managedBy": "kueue.x-k8s.io/multikueue"}));
    assert!(!model.sync_once());
    let mut model = Model::new(json!({"managedBy": "kubernetes.io/job-controller"}));
    assert!(model.sync_once());
}

#[test]
fn container_restarts_count_against_the_backoff_limit() {
    let template =
        json!({"spec": {"restartPolicy": "OnFailure", "containers": [{"name": "c", "image": "i"}]}});
    let restarted = |count: i32| {
        let container =
            json!({"name": "c", "image": "i", "imageID": "", "ready": true, "restartCount": count});
        json!({"phase": "Running", "containerStatuses": [container]})
    };
    for (limit, allowed) in [(0, 0), (1, 0), (3, 2)] {
        let mut model = Model::new(json!({"backoffLimit": limit, "template": template}));
        model.sync_until_stable().set(restarted(allowed)).sync_until_stable();
        assert_eq!(model.reasons(), [] as [String; 0]);
        model.set(restarted(allowed + 1)).sync_until_stable().remove_retained().sync_until_stable();
        assert_eq!(model.reasons()[1], "Failed/BackoffLimitExceeded");
    }
}

#[test]
fn parallelism_and_completions_limit_the_pods() {
    let mut model = Model::new(json!({"parallelism": 3, "completions": 5}));
    model.sync_until_stable();
    for left in [3, 3, 3, 2, 1] {
        assert_eq!(model.active().len(), left);
        model.end(true).sync_until_stable();
    }
    assert_eq!((model.status().succeeded, model.max_active), (Some(5), 3));
    assert_eq!(model.reasons()[1], "Complete/CompletionsReached");
}

#[test]
fn reduced_parallelism_deletes_the_pod_with_the_least_progress() {
    let mut model = Model::new(json!({"parallelism": 3, "completions": 3}));
    model.sync_until_stable().run();
    let running = pods::uid(&model.pods[0]).to_owned();
    model.job.spec.as_mut().unwrap().parallelism = Some(1);
    model.sync_until_stable();
    let left = model.active().into_iter().map(|pod| pods::uid(pod).to_owned()).collect::<Vec<_>>();
    assert_eq!(left, [running]);
    assert_eq!(model.status().failed, None);
}

#[test]
fn job_without_completions_needs_one_success() {
    let mut model = Model::new(json!({"parallelism": 2}));
    model.sync_until_stable().end(true).sync_until_stable();
    assert_eq!((model.active().len(), model.reasons().len()), (1, 0));
    model.end(false).sync_until_stable();
    assert_eq!(model.reasons()[1], "Complete/CompletionsReached");
}

#[test]
fn indexed_job_runs_each_index_until_success() {
    let mut model = Model::new(json!({"parallelism": 2, "completions": 4, "completionMode": "Indexed"}));
    model.sync_until_stable();
    assert_eq!(model.pods.iter().filter_map(pods::index).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(model.pods[1].spec.as_ref().unwrap().hostname.as_deref(), Some("a-1"));
    model.end(false).sync_until_stable().advance(10).sync_until_stable();
    assert_eq!(model.active().into_iter().filter_map(|pod| pods::index(pod)).collect::<Vec<_>>(), [1, 0]);
    for _ in 0..4 {
        model.end(true).sync_until_stable();
    }
    let status = model.status();
    assert_eq!(
        (status.completed_indexes.as_deref(), status.succeeded, status.failed),
        (Some("0-3"), Some(4), Some(1))
    );
    assert_eq!(model.reasons()[1], "Complete/CompletionsReached");
}

#[test]
fn deleted_pod_counts_as_failed() {
    let mut model = Model::new(json!({"backoffLimit": 0}));
    model.sync_until_stable();
    model.pods[0].metadata.deletion_timestamp = Some(Time(model.now));
    model.sync_until_stable().remove_retained().sync_until_stable();
    assert_eq!(
        (model.status().failed, model.reasons()[1].as_str()),
        (Some(1), "Failed/BackoffLimitExceeded")
    );
}

#[test]
fn terminating_job_releases_its_pods() {
    let mut model = Model::new(json!({}));
    model.sync_until_stable();
    model.job.metadata.deletion_timestamp = Some(Time(model.now));
    model.sync_until_stable();
    assert_eq!((model.pods.len(), pods::is_tracked(&model.pods[0])), (1, false));
    model.pods.clear();
    model.sync_until_stable();
    assert!(model.pods.is_empty(), "a terminating Job creates no pods");
}

#[test]
fn pod_has_the_owner_reference_finalizer_and_labels_of_its_job() {
    let mut model = Model::new(json!({}));
    model.sync_until_stable();
    let metadata = &model.pods[0].metadata;
    assert_eq!(metadata.finalizers.as_deref(), Some(&[FINALIZER.to_owned()][..]));
    assert!(pods::is_owned_by(&model.pods[0], "job"));
    let labels = metadata.labels.as_ref().unwrap();
    let names =
        ["batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-name", "controller-uid", "job-name"];
    assert_eq!(names.map(|label| labels[label].as_str()), ["job", "a", "job", "a"]);
}
