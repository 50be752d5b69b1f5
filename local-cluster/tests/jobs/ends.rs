//! The end of Jobs: conditions, counters, Events and their order.

use kube::{ResourceExt, api::DeleteParams};
use serde_json::{Value, json};

use crate::{
    testbed::{Testbed, conditions, shell, simple, state},
    wait::until_ended,
};

/// Summarizes a status without times and zero counters.
fn summary(status: &Value) -> String {
    let counter = |field: &&str| status[*field].as_i64().map(|value| format!("{field}:{value}"));
    let mut parts: Vec<String> =
        ["active", "ready", "terminating", "succeeded", "failed"].iter().filter_map(counter).collect();
    let uncounted = &status["uncountedTerminatedPods"];
    let waiting = ["succeeded", "failed"].into_iter().filter(|field| uncounted[*field].is_array());
    parts.extend(waiting.map(|field| format!("uncounted {field}")));
    let conditions = status["conditions"].as_array().into_iter().flatten();
    parts.extend(conditions.map(|condition| condition["type"].as_str().unwrap().to_owned()));
    parts.join(" ")
}

#[tokio::test]
async fn successful_job_reports_each_status_in_order() {
    let testbed = Testbed::new();
    let job = testbed.create(json!({}), simple(false)).await;
    let history: Vec<_> = testbed.status_history(&job).await.iter().map(summary).collect();
    assert_eq!(
        history,
        [
            "active:1 ready:0 terminating:0",
            "active:1 ready:1 terminating:0",
            "ready:0 terminating:0 uncounted succeeded SuccessCriteriaMet",
            "ready:0 terminating:0 succeeded:1 SuccessCriteriaMet Complete",
        ]
    );
    let job = testbed.until("Complete").await;
    let reason = |kind: &str| (kind.to_owned(), "CompletionsReached".to_owned());
    assert_eq!(conditions(&job), [reason("SuccessCriteriaMet"), reason("Complete")]);
    let status = job.status.unwrap();
    assert!(status.completion_time.unwrap() >= status.start_time.unwrap());
    let pods = testbed.pods().await;
    let [pod] = &pods[..] else { panic!("{pods:?}") };
    assert!(pod.finalizers().is_empty(), "the pod has no finalizer");
    let state = state(pod);
    assert_eq!(
        (&state["terminated"]["exitCode"], &state["terminated"]["reason"]),
        (&json!(0), &json!("Completed"))
    );
    let created = ("SuccessfulCreate".to_owned(), format!("Created pod: {}", pod.name_any()));
    assert_eq!(testbed.events("Job").await, [created, ("Completed".into(), "Job completed".into())]);
}

#[tokio::test]
async fn job_with_a_backoff_limit_of_three_fails_after_four_pods() {
    let testbed = Testbed::new();
    let job = testbed.create(json!({"backoffLimit": 3}), simple(true)).await;
    let history: Vec<_> = testbed.status_history(&job).await.iter().map(summary).collect();
    assert_eq!(
        history[history.len() - 2..],
        [
            "ready:0 terminating:0 failed:3 uncounted failed FailureTarget",
            "ready:0 terminating:0 failed:4 FailureTarget Failed",
        ]
    );
    let job = testbed.until("Failed").await;
    let failed = job.status.unwrap().conditions.unwrap().pop().unwrap();
    assert_eq!(failed.reason.as_deref(), Some("BackoffLimitExceeded"));
    assert_eq!(failed.message.as_deref(), Some("Job has reached the specified backoff limit"));
    let pods = testbed.pods().await;
    assert_eq!(pods.len(), 4);
    for pod in &pods {
        let ended = &state(pod)["terminated"];
        assert_eq!((&ended["exitCode"], &ended["reason"]), (&json!(1), &json!("Error")));
    }
    let events = testbed.events("Job").await;
    assert_eq!(events.len(), 5);
    assert_eq!(events[4].0, "BackoffLimitExceeded");
}

#[tokio::test]
async fn deadline_ends_the_process_before_the_job() {
    let testbed = Testbed::new();
    let job = testbed.create(json!({"activeDeadlineSeconds": 2}), testbed.sleeper("")).await;
    let pid = testbed.pid().await;
    let history: Vec<_> = testbed.status_history(&job).await.iter().map(summary).collect();
    let target = history.iter().position(|status| status.contains("FailureTarget")).unwrap();
    assert!(target < history.len() - 1, "FailureTarget precedes Failed: {history:?}");
    let job = testbed.until("Failed").await;
    let reason = |kind: &str| (kind.to_owned(), "DeadlineExceeded".to_owned());
    assert_eq!(conditions(&job), [reason("FailureTarget"), reason("Failed")]);
    assert_eq!(job.status.unwrap().failed, Some(1));
    until_ended(pid).await;
    assert!(testbed.pods().await.is_empty(), "the pod is deleted");
    let events: Vec<_> = testbed.events("Job").await.into_iter().map(|(reason, _)| reason).collect();
    assert_eq!(events, ["SuccessfulCreate", "SuccessfulDelete", "DeadlineExceeded"]);
}

#[tokio::test]
async fn suspended_job_ends_its_pods_and_restarts_when_resumed() {
    let testbed = Testbed::new();
    testbed.create(json!({}), testbed.sleeper("")).await;
    let first = testbed.pid().await;
    testbed.patch(json!({"suspend": true})).await;
    testbed.until("Suspended").await;
    until_ended(first).await;
    let status = testbed.until_status(|status| status.terminating == Some(0)).await;
    assert_eq!((status.active, status.failed, status.start_time), (None, None, None));
    std::fs::remove_file(testbed.folder.path().join("pid")).unwrap();
    testbed.patch(json!({"suspend": false})).await;
    let status = testbed.until_status(|status| status.ready == Some(1)).await;
    assert!(status.start_time.is_some());
    assert_eq!(status.conditions.unwrap()[0].reason.as_deref(), Some("JobResumed"));
    assert_ne!(testbed.pid().await, first);
}

#[tokio::test]
async fn job_created_suspended_has_no_pods() {
    let testbed = Testbed::new();
    testbed.create(json!({"suspend": true}), simple(false)).await;
    let job = testbed.until("Suspended").await;
    assert_eq!((testbed.pods().await.len(), job.status.unwrap().start_time), (0, None));
    testbed.patch(json!({"suspend": false})).await;
    testbed.until("Complete").await;
}

#[tokio::test]
async fn ttl_added_to_a_finished_job_deletes_it_with_its_pods() {
    let testbed = Testbed::new();
    testbed.create(json!({}), shell("true")).await;
    testbed.until("Complete").await;
    assert_eq!(testbed.pods().await.len(), 1);
    testbed.patch(json!({"ttlSecondsAfterFinished": 1})).await;
    testbed.until_gone().await;
    assert!(testbed.pods().await.is_empty());
}

#[tokio::test]
async fn deleted_job_ends_its_process() {
    for delete in [DeleteParams::background(), DeleteParams::foreground()] {
        let testbed = Testbed::new();
        testbed.create(json!({}), testbed.sleeper("")).await;
        let pid = testbed.pid().await;
        testbed.jobs.delete("a", &delete).await.unwrap();
        testbed.until_gone().await;
        until_ended(pid).await;
        testbed.until_no_pods().await;
    }
}

#[tokio::test]
async fn job_of_another_controller_is_ignored() {
    let testbed = Testbed::new();
    let theirs = testbed.create(json!({"managedBy": "example.com/other"}), shell("true")).await;
    testbed.create_named("b", json!({}), shell("true")).await;
    testbed.until_pod("Succeeded").await;
    let now = testbed.jobs.get("a").await.unwrap();
    assert_eq!((now.resource_version(), testbed.pods().await.len()), (theirs.resource_version(), 1));
}

#[tokio::test]
async fn indexed_job_runs_each_index() {
    let testbed = Testbed::new();
    let spec = json!({"completionMode": "Indexed", "completions": 3, "parallelism": 2});
    testbed.create(spec, shell("test $JOB_COMPLETION_INDEX -lt 3")).await;
    let status = testbed.until("Complete").await.status.unwrap();
    assert_eq!((status.succeeded, status.completed_indexes.as_deref()), (Some(3), Some("0-2")));
}

#[tokio::test]
async fn container_restarts_count_against_the_backoff_limit() {
    let testbed = Testbed::new();
    let flaky = shell("echo x >> runs; test $(wc -l < runs) -ge 3");
    testbed.create(json!({"restartPolicy": "OnFailure", "backoffLimit": 6}), flaky.clone()).await;
    testbed.until("Complete").await;
    let pods = testbed.pods().await;
    let status = &pods[0].status.as_ref().unwrap().container_statuses.as_ref().unwrap()[0];
    assert_eq!((pods.len(), status.restart_count), (1, 2));
    let last = status.last_state.as_ref().unwrap().terminated.as_ref().unwrap();
    assert_eq!(last.exit_code, 1);

    let testbed = Testbed::new();
    testbed.create(json!({"restartPolicy": "OnFailure", "backoffLimit": 2}), flaky).await;
    let job = testbed.until("Failed").await;
    assert_eq!(conditions(&job)[1].1, "BackoffLimitExceeded");
}

#[tokio::test]
async fn job_with_a_missing_image_waits_and_reports_the_reason() {
    let testbed = Testbed::new();
    testbed.create(json!({"activeDeadlineSeconds": 2}), json!({"image": "missing:1"})).await;
    let pod = testbed
        .watch_pods(|pod| pod.status.as_ref().is_some_and(|status| status.container_statuses.is_some()))
        .await;
    let message = "Container image \"missing:1\" is not present with pull policy of Never";
    assert_eq!(state(&pod), json!({"waiting": {"reason": "ErrImageNeverPull", "message": message}}));
    assert_eq!(pod.status.unwrap().phase.as_deref(), Some("Pending"));
    testbed.until("Failed").await;
    let events = testbed.events("Pod").await;
    assert_eq!(events[0], ("ErrImageNeverPull".into(), message.into()));
    assert_eq!(events[1], ("Failed".into(), "Error: ErrImageNeverPull".into()));
}

/// Each running pod waits for the others, so sequential execution would never finish.
#[tokio::test]
async fn jobs_run_concurrently_up_to_the_pod_limit() {
    const MAX_PODS: usize = 10;
    let testbed = Testbed::with(|options| options.max_pods = MAX_PODS);
    let folder = testbed.folder.path().display();
    let script = format!(
        "touch {folder}/$HOSTNAME; while [ $(ls {folder} | wc -l) -lt {MAX_PODS} ]; do sleep 0.02; done"
    );
    for number in 0..4 * MAX_PODS {
        testbed.create_named(&format!("job-{number}"), json!({}), shell(&script)).await;
    }
    testbed.until_all_complete(4 * MAX_PODS).await;
}
