//! A request creates one Job, however often it is published or delivered.

use dispatcher_tests::{Dispatcher, or_skip, until};
use k8s_openapi::api::batch::v1::Job;
use kube::api::{DeleteParams, ListParams, PostParams};
use serde_json::json;

use dispatcher_tests::job_controller::{finished_status as finished, managed_template};
use dispatcher_tests::test_env::{TestEnv as World, event, header, text};
use dispatcher_tests::wait::TIMEOUT as PATIENCE;

/// A dispatcher without deduplication in NATS, whose Jobs do not run.
async fn start() -> Result<(World, Dispatcher, tempfile::TempDir), String> {
    let world = World::start().await?;
    world.create_streams_without_deduplication().await;
    let (folder, templates) = managed_template();
    let dispatcher = world.dispatcher().templates(templates).start().await;
    Ok((world, dispatcher, folder))
}

async fn jobs(world: &World) -> Vec<Job> {
    world.namespace.jobs.list(&ListParams::default()).await.unwrap().items
}

/// Publishes a known request id again as soon as the deduplication window has passed.
async fn republish(world: &World, id: &str, payload: &str) -> u64 {
    until("the deduplication window to pass", PATIENCE, || async {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("Nats-Msg-Id", id);
        let sent =
            world.jetstream.publish_with_headers("jobs.simple.create", headers, payload.to_owned().into());
        let ack = sent.await.map_err(|e| e.to_string())?.await.map_err(|e| e.to_string())?;
        if ack.duplicate { Err("a duplicate".to_owned()) } else { Ok(ack.sequence) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_request_creates_no_second_job() {
    let (world, dispatcher, _folder) = or_skip!(start().await);
    let first = world.request_with_id("order-1", r#"{"foo":"a"}"#).await;
    let added = world.until_last("simple-job-a", "ADDED").await;
    assert_eq!((added["requestId"].clone(), added["requestSeq"].clone()), (json!("order-1"), json!(first)));

    // With other whitespace, after a restart of NATS, and after a restart of the dispatcher.
    republish(&world, "order-1", "{ \"foo\" : \"a\" }").await;
    world.until_queue_is_empty().await;
    world.nats.kill().await;
    world.nats.restart().await;
    republish(&world, "order-1", r#"{"foo":"a"}"#).await;
    world.until_queue_is_empty().await;
    dispatcher.kill().await;
    dispatcher.restart().await;
    republish(&world, "order-1", r#"{"foo":"a"}"#).await;
    world.until_queue_is_empty().await;

    // After the Job has finished and is deleted: its history identifies the request.
    world.set_status("simple-job-a", finished("Complete", 0, "CompletionsReached", "done")).await;
    world.outcome("simple-job-a").await;
    world.namespace.jobs.delete("simple-job-a", &DeleteParams::background()).await.unwrap();
    until("the Job to be deleted", PATIENCE, || async { jobs(&world).await.is_empty().then_some(()) }).await;
    republish(&world, "order-1", r#"{"foo":"a"}"#).await;
    world.until_queue_is_empty().await;

    assert!(jobs(&world).await.is_empty(), "a second Job was created");
    assert_eq!(world.rejections().await.len(), 0);
    let uids: Vec<_> = world.history("simple-job-a").await.iter().map(|m| header(m, "Job-Uid")).collect();
    assert!(uids.iter().all(|uid| *uid == text(&added["uid"])), "{uids:?}");
    assert_eq!(world.event_types("simple-job-a").await.iter().filter(|t| *t == "OUTCOME").count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn reused_request_id_with_another_request_is_rejected() {
    let (world, _dispatcher, _folder) = or_skip!(start().await);
    world.request_with_id("order-1", r#"{"foo":"a"}"#).await;
    world.until_last("simple-job-a", "ADDED").await;
    let before = world.job("simple-job-a").await;
    for payload in [r#"{"foo":"a","fail":true}"#, r#"{"foo":"b","name":"simple-job-a"}"#] {
        let reused = republish(&world, "order-1", payload).await;
        let letter = world.rejection(reused).await;
        assert_eq!(header(&letter, "Job-Error"), "RequestIdReused", "{:?}", letter.headers);
        assert_eq!(&letter.payload[..], payload.as_bytes());
    }
    // After the Job is deleted, its history still reveals the reuse.
    world.set_status("simple-job-a", finished("Complete", 0, "CompletionsReached", "done")).await;
    world.outcome("simple-job-a").await;
    assert_eq!(
        world.job("simple-job-a").await.spec.unwrap().template,
        before.spec.unwrap().template,
        "the Job was changed"
    );
    world.namespace.jobs.delete("simple-job-a", &DeleteParams::background()).await.unwrap();
    until("the Job to be deleted", PATIENCE, || async { jobs(&world).await.is_empty().then_some(()) }).await;
    let reused = republish(&world, "order-1", r#"{"foo":"a","fail":true}"#).await;
    assert_eq!(header(&world.rejection(reused).await, "Job-Error"), "RequestIdReused");
    assert!(jobs(&world).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn taken_name_is_rejected_with_a_hint_at_generate_name() {
    let (world, _dispatcher, _folder) = or_skip!(start().await);
    world.request(r#"{"foo":"a"}"#).await;
    world.until_last("simple-job-a", "ADDED").await;
    let taken = world.request(r#"{"foo":"a"}"#).await;
    let letter = world.dead_letter(taken).await;
    assert_eq!(header(&letter, "Job-Error"), "NameTaken");
    assert_eq!(header(&letter, "Job-Name"), "simple-job-a");
    assert!(header(&letter, "Job-Error-Message").contains("generateName"), "{:?}", letter.headers);

    // A Job that the dispatcher does not manage also takes the name. It stays unchanged and has no events.
    let mut other = world.job("simple-job-a").await;
    other.metadata = serde_json::from_value(json!({"name": "simple-job-b"})).unwrap();
    let spec = other.spec.as_mut().unwrap();
    (spec.selector, spec.template.metadata) = (None, None);
    let unmanaged = world.namespace.jobs.create(&PostParams::default(), &other).await.unwrap();
    let taken = world.request(r#"{"foo":"b"}"#).await;
    assert_eq!(header(&world.rejection(taken).await, "Job-Error"), "NameTaken");
    assert_eq!(world.job("simple-job-b").await.metadata.resource_version, unmanaged.metadata.resource_version);
    assert_eq!(world.history("simple-job-b").await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn generate_name_gives_each_request_a_unique_name() {
    let (world, _dispatcher, _folder) = or_skip!(start().await);
    for _ in 0..3 {
        world.request(r#"{"foo":"a","generateName":"nightly-"}"#).await;
    }
    world.until_queue_is_empty().await;
    let names: Vec<_> = jobs(&world).await.into_iter().map(|job| job.metadata.name.unwrap()).collect();
    assert_eq!(names.len(), 3, "{names:?}");
    assert!(names.iter().all(|name| name.starts_with("nightly-")), "{names:?}");
    assert_eq!(world.dead_letters().await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_request_is_recognized_after_its_name_was_reused() {
    let (world, _dispatcher, _folder) = or_skip!(start().await);
    for id in ["order-1", "order-2"] {
        world.request_with_id(id, r#"{"foo":"a"}"#).await;
        world.until_last("simple-job-a", "ADDED").await;
        world.namespace.jobs.delete("simple-job-a", &DeleteParams::background()).await.unwrap();
        world.outcome("simple-job-a").await;
    }
    republish(&world, "order-1", r#"{"foo":"a"}"#).await;
    world.until_queue_is_empty().await;
    assert!(jobs(&world).await.is_empty(), "order-1 got a second Job");
    assert_eq!(world.types("simple-job-a").await.iter().filter(|t| *t == "ADDED").count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn released_name_is_reusable_and_its_history_continues() {
    let (world, _dispatcher, _folder) = or_skip!(start().await);
    for round in 1..=3 {
        world.request(r#"{"foo":"a"}"#).await;
        world.until_last("simple-job-a", "ADDED").await;
        world.set_status("simple-job-a", finished("Complete", 0, "CompletionsReached", "done")).await;
        world.outcome("simple-job-a").await;
        until("the Job to be retired", PATIENCE, || async {
            world
                .job("simple-job-a")
                .await
                .metadata
                .labels?
                .contains_key("natsjobs.dev/outcome")
                .then_some(())
        })
        .await;
        world.namespace.jobs.delete("simple-job-a", &DeleteParams::background()).await.unwrap();
        until("the Job to be deleted", PATIENCE, || async { jobs(&world).await.is_empty().then_some(()) }).await;
        let outcomes = world.types("simple-job-a").await.iter().filter(|t| *t == "OUTCOME").count();
        assert_eq!(outcomes, round);
    }
    assert_eq!(world.dead_letters().await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn job_without_its_template_label_is_not_published_as_deleted() {
    let (world, _dispatcher, _folder) = or_skip!(start().await);
    world.request(r#"{"foo":"a"}"#).await;
    world.until_last("simple-job-a", "ADDED").await;
    let patch = json!({"metadata": {"labels": {"natsjobs.dev/template": null}}});
    let patch = kube::api::Patch::Merge(&patch);
    world.namespace.jobs.patch("simple-job-a", &kube::api::PatchParams::default(), &patch).await.unwrap();
    until("the label to be restored", PATIENCE, || async {
        world.job("simple-job-a").await.metadata.labels?.contains_key("natsjobs.dev/template").then_some(())
    })
    .await;
    world.set_status("simple-job-a", finished("Failed", 1, "BackoffLimitExceeded", "message")).await;
    assert_eq!(world.outcome("simple-job-a").await["result"], "Failed");
    let types = world.event_types("simple-job-a").await;
    assert!(!types.contains(&"DELETED".to_owned()), "{types:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn manually_deleted_job_has_the_outcome_deleted() {
    let (world, _dispatcher, _folder) = or_skip!(start().await);
    world.request(r#"{"foo":"a"}"#).await;
    world.until_last("simple-job-a", "ADDED").await;
    world.namespace.jobs.delete("simple-job-a", &DeleteParams::background()).await.unwrap();
    assert_eq!(world.outcome("simple-job-a").await["result"], "Deleted");
    let history = world.history("simple-job-a").await;
    let types: Vec<_> = history.iter().map(|m| text(&event(m)["type"])).collect();
    assert_eq!(types[types.len() - 2..], ["DELETED", "OUTCOME"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn job_with_changed_labels_and_annotations_gets_its_outcome() {
    let (world, _dispatcher, _folder) = or_skip!(start().await);
    world.request(r#"{"foo":"a"}"#).await;
    world.until_last("simple-job-a", "ADDED").await;
    let patch = json!({"metadata": {"labels": {"app.kubernetes.io/managed-by": "other"},
                                    "annotations": {"natsjobs.dev/request-seq": null}}});
    let patch = kube::api::Patch::Merge(&patch);
    world.namespace.jobs.patch("simple-job-a", &kube::api::PatchParams::default(), &patch).await.unwrap();
    world.set_status("simple-job-a", finished("Failed", 1, "BackoffLimitExceeded", "message")).await;
    assert_eq!(world.outcome("simple-job-a").await["result"], "Failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_request_of_a_retired_job_is_recognized_without_its_history() {
    let (world, dispatcher, _folder) = or_skip!(start().await);
    world.request_with_id("order-1", r#"{"foo":"a"}"#).await;
    world.until_last("simple-job-a", "ADDED").await;
    world.set_status("simple-job-a", finished("Complete", 0, "CompletionsReached", "done")).await;
    world.outcome("simple-job-a").await;
    until("the Job to be retired", PATIENCE, || async {
        world.job("simple-job-a").await.metadata.labels?.contains_key("natsjobs.dev/outcome").then_some(())
    })
    .await;
    world.jetstream.get_stream("JOB_STATUS").await.unwrap().purge().await.unwrap();
    republish(&world, "order-1", r#"{"foo":"a"}"#).await;
    world.until_queue_is_empty().await;
    assert_eq!(world.history("simple-job-a").await.len(), 0, "a retired Job got an event");
    let reused = republish(&world, "order-1", r#"{"foo":"a","fail":true}"#).await;
    assert_eq!(header(&world.rejection(reused).await, "Job-Error"), "RequestIdReused");
    assert!(!dispatcher.log().contains("put back"), "{}", dispatcher.log());
}
