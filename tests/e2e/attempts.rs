//! `ATTEMPT` and `STALLED`: why a Job failed or does not run. Some tests run pods, others patch
//! their status.

use std::path::PathBuf;

use dispatcher_tests::job_controller::now;
use dispatcher_tests::test_env::{TestEnv, event, header, text};
use dispatcher_tests::wait::TIMEOUT;
use dispatcher_tests::{Kubernetes, Nats, Options, only_on_kubernetes, or_skip, paths, until};
use k8s_openapi::api::core::v1::{Pod, ResourceQuota};
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

/// The shipped template `simple` with `change` applied. Its Jobs sleep 0.1 s and are not retried.
pub(crate) fn modified_template(change: impl FnOnce(&mut Value)) -> (tempfile::TempDir, PathBuf) {
    let folder = paths::temp_dir("templates").unwrap();
    let path = paths::workspace().join("deploy/templates/simple.yaml");
    let mut simple: Value = serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    simple["spec"]["job"]["spec"]["backoffLimit"] = 0.into();
    for variable in container(&mut simple)["env"].as_array_mut().unwrap() {
        if variable["name"] == "SLEEP_SECONDS" {
            variable["value"] = "0.1".into();
        }
    }
    change(&mut simple);
    // JSON is valid YAML.
    std::fs::write(folder.path().join("simple.yaml"), simple.to_string()).unwrap();
    let path = folder.path().to_owned();
    (folder, path)
}

pub(crate) fn container(manifest: &mut Value) -> &mut Value {
    &mut manifest["spec"]["job"]["spec"]["template"]["spec"]["containers"][0]
}

/// Waits for an event of this type and returns all of them.
pub(crate) async fn events(env: &TestEnv, name: &str, type_: &str) -> Vec<Value> {
    until(&format!("{type_} of {name}"), TIMEOUT, || async {
        let history: Vec<Value> = env.history(name).await.iter().map(event).collect();
        let found: Vec<Value> = history.iter().filter(|event| event["type"] == type_).cloned().collect();
        if found.is_empty() { Err(history) } else { Ok(found) }
    })
    .await
}

fn last_line(attempt: &Value) -> String {
    attempt["logTail"].as_str().unwrap_or_default().lines().last().unwrap_or_default().to_owned()
}

/// The start of the last log line of a failing Job.
const FAILED: &str = "Simple Job with foo=\"bad\" failed";

#[tokio::test(flavor = "multi_thread")]
async fn failed_attempt_is_published_with_exit_code_and_log_before_the_outcome_lists_it() {
    let env = or_skip!(TestEnv::start().await);
    let (_folder, templates) = modified_template(|_| {});
    let _dispatcher = env.dispatcher().templates(templates).start().await;
    env.request(r#"{"foo":"bad","fail":true}"#).await;
    let outcome = env.outcome("simple-job-bad").await;
    assert_eq!(outcome["reason"], "BackoffLimitExceeded", "{outcome}");

    let published = &events(&env, "simple-job-bad", "ATTEMPT").await[0];
    let attempt = &published["attempt"];
    assert_eq!((&attempt["exitCode"], &attempt["reason"]), (&json!(1), &json!("Error")), "{published}");
    assert!(text(&attempt["pod"]).starts_with("simple-job-bad-"), "{published}");
    assert!(!text(&attempt["node"]).is_empty() && !text(&attempt["finishedAt"]).is_empty(), "{published}");
    let attempts = outcome["attempts"].as_array().unwrap();
    assert_eq!((attempts.len(), &attempts[0]["pod"]), (1, &attempt["pod"]), "{outcome}");
    assert!(last_line(&attempts[0]).starts_with(FAILED), "{outcome}");
    assert!(outcome.get("attemptsOmitted").is_none(), "{outcome}");

    // An ATTEMPT carries the resource version of the preceding event. The OUTCOME is last.
    let history = env.history("simple-job-bad").await;
    let index = history.iter().position(|message| event(message)["type"] == "ATTEMPT").unwrap();
    let before = header(&history[index - 1], "Job-Resource-Version");
    assert_eq!(header(&history[index], "Job-Resource-Version"), before);
    assert_eq!(event(history.last().unwrap())["type"], "OUTCOME");
}

#[tokio::test(flavor = "multi_thread")]
async fn oom_killed_attempt_has_reason_exit_code_memory_limit_and_log() {
    let env = or_skip!(TestEnv::start().await);
    let _dispatcher = env.dispatcher().start().await;
    let request = r#"{"foo":"big","reqBytes":"32Mi","limBytes":"32Mi","allocBytes":"256Mi"}"#;
    env.jetstream.publish("jobs.memory.create", request.into()).await.unwrap().await.unwrap();
    let stream = env.jetstream.get_stream_no_info("JOB_STATUS").await.unwrap();
    let outcome = until("the outcome of the template memory", TIMEOUT, || async {
        let last = stream.get_last_raw_message_by_subject("jobs.memory.status.memory-job-big").await;
        let last = event(&last.map_err(|error| error.to_string())?);
        if last["type"] == "OUTCOME" { Ok(last["outcome"].clone()) } else { Err(last.to_string()) }
    })
    .await;
    let attempt = &outcome["attempts"][0];
    assert_eq!(
        (&outcome["result"], &attempt["reason"]),
        (&json!("Failed"), &json!("OOMKilled")),
        "{outcome}"
    );
    assert_eq!((&attempt["exitCode"], &attempt["memoryLimit"]), (&json!(137), &json!("32Mi")), "{outcome}");
    assert!(!last_line(attempt).is_empty(), "no log: {outcome}");
}

/// The kubelet cuts at a byte limit from the start of the last lines, not from their end.
#[tokio::test(flavor = "multi_thread")]
async fn log_tail_is_the_end_of_a_log_with_a_long_line() {
    let env = or_skip!(TestEnv::start().await);
    let (_folder, templates) = modified_template(|simple| {
        // Linux limits a variable to 128 KiB.
        container(simple)["env"][0]["value"] = format!("${{foo}}{}", "x".repeat(120_000)).into();
    });
    let _dispatcher = env.dispatcher().templates(templates).start().await;
    env.request(r#"{"foo":"bad","fail":true}"#).await;
    let outcome = env.outcome("simple-job-bad").await;
    let tail = text(&outcome["attempts"][0]["logTail"]);
    // The quotation mark takes two bytes of JSON.
    assert_eq!(tail.len(), 4095, "{outcome}");
    assert!(tail.ends_with("xxx\" failed because FAIL is set."), "{outcome}");
}

#[tokio::test(flavor = "multi_thread")]
async fn disabled_log_tail_is_not_published() {
    let env = or_skip!(TestEnv::start().await);
    let (_folder, templates) = modified_template(|simple| simple["spec"]["logTail"] = false.into());
    let _dispatcher = env.dispatcher().templates(templates).start().await;
    env.request(r#"{"foo":"bad","fail":true}"#).await;
    let outcome = env.outcome("simple-job-bad").await;
    assert_eq!(outcome["attempts"][0]["exitCode"], 1, "{outcome}");
    let history = env.history("simple-job-bad").await;
    assert!(
        history.iter().all(|message| !event(message).to_string().contains("Simple Job with")),
        "{outcome}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_that_ended_during_downtime_are_published_after_the_start() {
    let env = or_skip!(TestEnv::start().await);
    let (_folder, templates) = modified_template(|_| {});
    let dispatcher = env.dispatcher().templates(templates).start().await;
    env.request(r#"{"foo":"bad","fail":true}"#).await;
    env.until_queue_is_empty().await;
    dispatcher.kill().await;
    until("the Job to have failed", TIMEOUT, || async {
        let status = env.namespace.jobs.get("simple-job-bad").await.ok()?.status?;
        status.conditions?.iter().any(|c| c.type_ == "Failed" && c.status == "True").then_some(())
    })
    .await;
    dispatcher.restart().await;
    let outcome = env.outcome("simple-job-bad").await;
    assert_eq!(outcome["attempts"][0]["exitCode"], 1, "{outcome}");
    assert!(last_line(&outcome["attempts"][0]).starts_with(FAILED), "{outcome}");
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_image_is_published_as_a_stall_and_in_the_outcome() {
    only_on_kubernetes!("the local cluster does not pull images");
    let env = or_skip!(TestEnv::start().await);
    let (_folder, templates) = modified_template(|simple| {
        simple["spec"]["job"]["spec"]["activeDeadlineSeconds"] = 20.into();
        container(simple)["image"] = "simple-job:none".into();
    });
    let _dispatcher = env.dispatcher().templates(templates).start().await;
    env.request(r#"{"foo":"x"}"#).await;
    let outcome = env.outcome("simple-job-x").await;
    assert_eq!((&outcome["result"], &outcome["reason"]), (&json!("Failed"), &json!("DeadlineExceeded")));
    assert_eq!(outcome["stall"]["reason"], "ErrImageNeverPull", "{outcome}");
    assert_eq!(outcome["attempts"][0]["reason"], "Deleted", "{outcome}");
    assert!(outcome["attempts"][0].get("exitCode").is_none(), "no container ran: {outcome}");
    // The stall was published once, before the deadline.
    let stalls = events(&env, "simple-job-x", "STALLED").await;
    assert_eq!((stalls.len(), &stalls[0]["stall"]["reason"]), (1, &json!("ErrImageNeverPull")), "{stalls:?}");
    assert!(text(&stalls[0]["stall"]["message"]).contains("simple-job:none"), "{stalls:?}");
    let conditions = stalls[0]["status"]["conditions"].as_array().map_or(0, Vec::len);
    assert_eq!(conditions, 0, "{stalls:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn exceeded_pod_quota_is_published_as_a_stall_with_the_message_of_kubernetes() {
    only_on_kubernetes!("the local cluster has no quotas");
    let env = or_skip!(TestEnv::start().await);
    let quotas: Api<ResourceQuota> = Api::namespaced(env.namespace.client.clone(), &env.namespace.name);
    let quota = json!({"metadata": {"name": "no-pods"}, "spec": {"hard": {"pods": "0"}}});
    quotas.create(&PostParams::default(), &serde_json::from_value(quota).unwrap()).await.unwrap();
    until("the quota to be in force", TIMEOUT, || async {
        quotas.get("no-pods").await.ok()?.status?.used?.contains_key("pods").then_some(())
    })
    .await;
    let _dispatcher = env.dispatcher().start().await;
    env.request(r#"{"foo":"x"}"#).await;
    let stall = events(&env, "simple-job-x", "STALLED").await[0]["stall"].clone();
    assert_eq!(stall["reason"], "QuotaExceeded", "{stall}");
    assert!(text(&stall["message"]).contains("exceeded quota: no-pods"), "{stall}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pod_security_violation_is_published_as_a_stall_with_the_message_of_kubernetes() {
    only_on_kubernetes!("the local cluster has no Pod Security admission");
    let env = or_skip!(TestEnv::start().await);
    let (_folder, templates) = modified_template(|simple| {
        simple["spec"]["job"]["spec"]["template"]["spec"]["securityContext"] = json!({});
    });
    let _dispatcher = env.dispatcher().templates(templates).start().await;
    env.request(r#"{"foo":"x"}"#).await;
    let stall = events(&env, "simple-job-x", "STALLED").await[0]["stall"].clone();
    assert_eq!(stall["reason"], "PodSecurity", "{stall}");
    assert!(text(&stall["message"]).contains("violates PodSecurity \"restricted"), "{stall}");
}

/// Sets the status of a terminated pod, as a kubelet does.
pub(crate) async fn terminate_pod(pods: &Api<Pod>, name: &str, code: i32, message: &str) {
    let now = now();
    let terminated = json!({"exitCode": code, "reason": if code == 0 { "Completed" } else { "Error" },
        "message": message, "startedAt": now, "finishedAt": now});
    let status = json!({"phase": if code == 0 { "Succeeded" } else { "Failed" }, "startTime": now,
        "containerStatuses": [{"name": "simple-job", "image": "i", "imageID": "i", "ready": false, "restartCount": 0,
                               "state": {"terminated": terminated}}]});
    let patch = Patch::Merge(json!({"status": status}));
    pods.patch_status(name, &PatchParams::default(), &patch).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn outcome_of_a_successful_job_has_the_termination_message_of_its_container() {
    let kubernetes = or_skip!(Kubernetes::control_plane(Options::default()).await);
    let env = TestEnv::new(Nats::start().await, kubernetes.namespace().await).await;
    let (_folder, templates) = modified_template(|_| {});
    let _dispatcher = env.dispatcher().templates(templates).start().await;
    env.request(r#"{"foo":"x"}"#).await;
    let pod = until("the Job's pod", TIMEOUT, || async {
        env.namespace.pods.list(&ListParams::default()).await.ok()?.items.pop()?.metadata.name
    })
    .await;
    terminate_pod(&env.namespace.pods, &pod, 0, "{\"rows\":7}\u{1b}").await;
    let outcome = env.outcome("simple-job-x").await;
    assert_eq!(outcome["result"], "Complete", "{outcome}");
    assert_eq!(outcome["attempts"][0]["message"], "{\"rows\":7}\\x1b", "{outcome}");
    assert!(outcome["attempts"][0].get("logTail").is_none(), "{outcome}");
}
