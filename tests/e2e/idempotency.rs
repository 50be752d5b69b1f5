//! A request creates one Job, however often it is published or delivered.

use dispatcher_tests::job_controller::{finished_status, managed_template};
use dispatcher_tests::test_env::{TestEnv, event, header, text};
use dispatcher_tests::wait::TIMEOUT;
use dispatcher_tests::{Dispatcher, or_skip, until};
use k8s_openapi::api::batch::v1::Job;
use kube::api::{DeleteParams, ListParams, PostParams};
use serde_json::json;

/// A dispatcher without deduplication in NATS, whose Jobs do not run.
async fn start() -> Result<(TestEnv, Dispatcher, tempfile::TempDir), String> {
    let env = TestEnv::start().await?;
    env.create_streams_without_deduplication().await;
    let (folder, templates) = managed_template();
    let dispatcher = env.dispatcher().templates(templates).start().await;
    Ok((env, dispatcher, folder))
}

async fn jobs(env: &TestEnv) -> Vec<Job> {
    env.namespace.jobs.list(&ListParams::default()).await.unwrap().items
}

/// Publishes a known request id again as soon as the deduplication window has passed.
async fn republish(env: &TestEnv, id: &str, payload: &str) -> u64 {
    until("the deduplication window to pass", TIMEOUT, || async {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("Nats-Msg-Id", id);
        let sent =
            env.jetstream.publish_with_headers("jobs.simple.create", headers, payload.to_owned().into());
        let ack = sent.await.map_err(|e| e.to_string())?.await.map_err(|e| e.to_string())?;
        if ack.duplicate { Err("a duplicate".to_owned()) } else { Ok(ack.sequence) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_request_creates_no_second_job() {
    let (env, dispatcher, _folder) = or_skip!(start().await);
    let first = env.request_with_id("order-1", r#"{"foo":"a"}"#).await;
    let added = env.until_last("simple-job-a", "ADDED").await;
    assert_eq!((added["requestId"].clone(), added["requestSeq"].clone()), (json!("order-1"), json!(first)));

    // With other whitespace, after a restart of NATS, and after a restart of the dispatcher.
    republish(&env, "order-1", "{ \"foo\" : \"a\" }").await;
    env.until_queue_is_empty().await;
    env.nats.kill().await;
    env.nats.restart().await;
    republish(&env, "order-1", r#"{"foo":"a"}"#).await;
    env.until_queue_is_empty().await;
    dispatcher.kill().await;
    dispatcher.restart().await;
    republish(&env, "order-1", r#"{"foo":"a"}"#).await;
    env.until_queue_is_empty().await;

    // After the Job has finished and is deleted: its history identifies the request.
    env.set_status("simple-job-a", finished_status("Complete", 0, "CompletionsReached", "done")).await;
    env.outcome("simple-job-a").await;
    env.namespace.jobs.delete("simple-job-a", &DeleteParams::background()).await.unwrap();
    until("the Job to be deleted", TIMEOUT, || async { jobs(&env).await.is_empty().then_some(()) }).await;
    republish(&env, "order-1", r#"{"foo":"a"}"#).await;
    env.until_queue_is_empty().await;

    assert!(jobs(&env).await.is_empty(), "a second Job was created");
    assert_eq!(env.dead_letters().await.len(), 0);
    let uids: Vec<_> = env.history("simple-job-a").await.iter().map(|m| header(m, "Job-Uid")).collect();
    assert!(uids.iter().all(|uid| *uid == text(&added["uid"])), "{uids:?}");
    assert_eq!(env.event_types("simple-job-a").await.iter().filter(|t| *t == "OUTCOME").count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn reused_request_id_with_another_request_is_rejected() {
    let (env, _dispatcher, _folder) = or_skip!(start().await);
    env.request_with_id("order-1", r#"{"foo":"a"}"#).await;
    env.until_last("simple-job-a", "ADDED").await;
    let before = env.job("simple-job-a").await;
    for payload in [r#"{"foo":"a","fail":true}"#, r#"{"foo":"b","name":"simple-job-a"}"#] {
        let reused = republish(&env, "order-1", payload).await;
        let dead_letter = env.dead_letter(reused).await;
        assert_eq!(header(&dead_letter, "Job-Error"), "RequestIdReused", "{:?}", dead_letter.headers);
        assert_eq!(&dead_letter.payload[..], payload.as_bytes());
    }
    // After the Job is deleted, its history still reveals the reuse.
    env.set_status("simple-job-a", finished_status("Complete", 0, "CompletionsReached", "done")).await;
    env.outcome("simple-job-a").await;
    assert_eq!(
        env.job("simple-job-a").await.spec.unwrap().template,
        before.spec.unwrap().template,
        "the Job was changed"
    );
    env.namespace.jobs.delete("simple-job-a", &DeleteParams::background()).await.unwrap();
    until("the Job to be deleted", TIMEOUT, || async { jobs(&env).await.is_empty().then_some(()) }).await;
    let reused = republish(&env, "order-1", r#"{"foo":"a","fail":true}"#).await;
    assert_eq!(header(&env.dead_letter(reused).await, "Job-Error"), "RequestIdReused");
    assert!(jobs(&env).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn taken_name_is_rejected_with_a_hint_at_generate_name() {
    let (env, _dispatcher, _folder) = or_skip!(start().await);
    env.request(r#"{"foo":"a"}"#).await;
    env.until_last("simple-job-a", "ADDED").await;
    let taken = env.request(r#"{"foo":"a"}"#).await;
    let dead_letter = env.dead_letter(taken).await;
    assert_eq!(header(&dead_letter, "Job-Error"), "NameTaken");
    assert_eq!(header(&dead_letter, "Job-Name"), "simple-job-a");
    assert!(header(&dead_letter, "Job-Error-Message").contains("generateName"), "{:?}", dead_letter.headers);

    // A Job that the dispatcher does not manage also takes the name. It stays unchanged and has no
    // events.
    let mut other = env.job("simple-job-a").await;
    other.metadata = serde_json::from_value(json!({"name": "simple-job-b"})).unwrap();
    let spec = other.spec.as_mut().unwrap();
    (spec.selector, spec.template.metadata) = (None, None);
    let unmanaged = env.namespace.jobs.create(&PostParams::default(), &other).await.unwrap();
    let taken = env.request(r#"{"foo":"b"}"#).await;
    assert_eq!(header(&env.dead_letter(taken).await, "Job-Error"), "NameTaken");
    assert_eq!(env.job("simple-job-b").await.metadata.resource_version, unmanaged.metadata.resource_version);
    assert_eq!(env.history("simple-job-b").await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn generate_name_gives_each_request_a_unique_name() {
    let (env, _dispatcher, _folder) = or_skip!(start().await);
    for _ in 0..3 {
        env.request(r#"{"foo":"a","generateName":"nightly-"}"#).await;
    }
    env.until_queue_is_empty().await;
    let names: Vec<_> = jobs(&env).await.into_iter().map(|job| job.metadata.name.unwrap()).collect();
    assert_eq!(names.len(), 3, "{names:?}");
    assert!(names.iter().all(|name| name.starts_with("nightly-")), "{names:?}");
    assert_eq!(env.dead_letters().await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_request_is_recognized_after_its_name_was_reused() {
    let (env, _dispatcher, _folder) = or_skip!(start().await);
    for id in ["order-1", "order-2"] {
        env.request_with_id(id, r#"{"foo":"a"}"#).await;
        env.until_last("simple-job-a", "ADDED").await;
        env.namespace.jobs.delete("simple-job-a", &DeleteParams::background()).await.unwrap();
        env.outcome("simple-job-a").await;
    }
    republish(&env, "order-1", r#"{"foo":"a"}"#).await;
    env.until_queue_is_empty().await;
    assert!(jobs(&env).await.is_empty(), "order-1 got a second Job");
    assert_eq!(env.event_types("simple-job-a").await.iter().filter(|t| *t == "ADDED").count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn released_name_is_reusable_and_its_history_continues() {
    let (env, _dispatcher, _folder) = or_skip!(start().await);
    for round in 1..=3 {
        env.request(r#"{"foo":"a"}"#).await;
        env.until_last("simple-job-a", "ADDED").await;
        env.set_status("simple-job-a", finished_status("Complete", 0, "CompletionsReached", "done")).await;
        env.outcome("simple-job-a").await;
        until("the Job to be retired", TIMEOUT, || async {
            env.job("simple-job-a").await.metadata.labels?.contains_key("natsjobs.dev/outcome").then_some(())
        })
        .await;
        env.namespace.jobs.delete("simple-job-a", &DeleteParams::background()).await.unwrap();
        until("the Job to be deleted", TIMEOUT, || async { jobs(&env).await.is_empty().then_some(()) }).await;
        let outcomes = env.event_types("simple-job-a").await.iter().filter(|t| *t == "OUTCOME").count();
        assert_eq!(outcomes, round);
    }
    assert_eq!(env.dead_letters().await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn job_without_its_template_label_is_not_published_as_deleted() {
    let (env, _dispatcher, _folder) = or_skip!(start().await);
    env.request(r#"{"foo":"a"}"#).await;
    env.until_last("simple-job-a", "ADDED").await;
    let patch = json!({"metadata": {"labels": {"natsjobs.dev/template": null}}});
    let patch = kube::api::Patch::Merge(&patch);
    env.namespace.jobs.patch("simple-job-a", &kube::api::PatchParams::default(), &patch).await.unwrap();
    until("the label to be restored", TIMEOUT, || async {
        env.job("simple-job-a").await.metadata.labels?.contains_key("natsjobs.dev/template").then_some(())
    })
    .await;
    env.set_status("simple-job-a", finished_status("Failed", 1, "BackoffLimitExceeded", "message")).await;
    assert_eq!(env.outcome("simple-job-a").await["result"], "Failed");
    let types = env.event_types("simple-job-a").await;
    assert!(!types.contains(&"DELETED".to_owned()), "{types:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn manually_deleted_job_has_the_outcome_deleted() {
    let (env, _dispatcher, _folder) = or_skip!(start().await);
    env.request(r#"{"foo":"a"}"#).await;
    env.until_last("simple-job-a", "ADDED").await;
    env.namespace.jobs.delete("simple-job-a", &DeleteParams::background()).await.unwrap();
    assert_eq!(env.outcome("simple-job-a").await["result"], "Deleted");
    let history = env.history("simple-job-a").await;
    let types: Vec<_> = history.iter().map(|m| text(&event(m)["type"])).collect();
    assert_eq!(types[types.len() - 2..], ["DELETED", "OUTCOME"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn job_with_changed_labels_and_annotations_gets_its_outcome() {
    let (env, _dispatcher, _folder) = or_skip!(start().await);
    env.request(r#"{"foo":"a"}"#).await;
    env.until_last("simple-job-a", "ADDED").await;
    let patch = json!({"metadata": {"labels": {"app.kubernetes.io/managed-by": "other"},
                                    "annotations": {"natsjobs.dev/request-seq": null}}});
    let patch = kube::api::Patch::Merge(&patch);
    env.namespace.jobs.patch("simple-job-a", &kube::api::PatchParams::default(), &patch).await.unwrap();
    env.set_status("simple-job-a", finished_status("Failed", 1, "BackoffLimitExceeded", "message")).await;
    assert_eq!(env.outcome("simple-job-a").await["result"], "Failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_request_of_a_retired_job_is_recognized_without_its_history() {
    let (env, dispatcher, _folder) = or_skip!(start().await);
    env.request_with_id("order-1", r#"{"foo":"a"}"#).await;
    env.until_last("simple-job-a", "ADDED").await;
    env.set_status("simple-job-a", finished_status("Complete", 0, "CompletionsReached", "done")).await;
    env.outcome("simple-job-a").await;
    until("the Job to be retired", TIMEOUT, || async {
        env.job("simple-job-a").await.metadata.labels?.contains_key("natsjobs.dev/outcome").then_some(())
    })
    .await;
    env.jetstream.get_stream("JOB_STATUS").await.unwrap().purge().await.unwrap();
    republish(&env, "order-1", r#"{"foo":"a"}"#).await;
    env.until_queue_is_empty().await;
    assert_eq!(env.history("simple-job-a").await.len(), 0, "a retired Job got an event");
    let reused = republish(&env, "order-1", r#"{"foo":"a","fail":true}"#).await;
    assert_eq!(header(&env.dead_letter(reused).await, "Job-Error"), "RequestIdReused");
    let (_, metrics) = dispatcher.get("/metrics").await.unwrap();
    let retried = r#"dispatcher_requests_total{template="simple",result="retrying"} 0"#;
    assert!(metrics.lines().any(|line| line == retried), "{metrics}");
}
