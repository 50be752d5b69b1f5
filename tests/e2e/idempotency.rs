//! One request, one Job: however often it is delivered or published.

use dispatcher_tests::{Dispatcher, or_skip, until};
use k8s_openapi::api::batch::v1::Job;
use kube::api::{DeleteParams, ListParams, PostParams};
use serde_json::json;

use crate::world::{PATIENCE, World, event, finished, header, managed_template, text};

/// A world without deduplication, whose Jobs wait for the test.
async fn start() -> Result<(World, Dispatcher, tempfile::TempDir), String> {
    let world = World::start().await?;
    world.make_streams_without_deduplication().await;
    let (folder, templates) = managed_template();
    let dispatcher = world.dispatcher().templates(templates).start().await;
    Ok((world, dispatcher, folder))
}

async fn jobs(world: &World) -> Vec<Job> {
    world.namespace.jobs.list(&ListParams::default()).await.unwrap().items
}

/// Publishes under an id until the stream takes it: its window has to be over.
async fn publish_again(world: &World, id: &str, payload: &str) -> u64 {
    until("the deduplication window to be over", PATIENCE, || async {
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
async fn the_same_message_again_is_the_same_job() {
    let (world, dispatcher, _folder) = or_skip!(start().await);
    let first = world.request_as("order-1", r#"{"foo":"a"}"#).await;
    let added = world.until_last("simple-job-a", "ADDED").await;
    assert_eq!((added["requestId"].clone(), added["requestSeq"].clone()), (json!("order-1"), json!(first)));

    // Again, in another spelling; after a restart of NATS; after a restart of the dispatcher.
    publish_again(&world, "order-1", "{ \"foo\" : \"a\" }").await;
    world.until_queue_is_empty().await;
    world.nats.kill().await;
    world.nats.restart().await;
    publish_again(&world, "order-1", r#"{"foo":"a"}"#).await;
    world.until_queue_is_empty().await;
    dispatcher.kill().await;
    dispatcher.restart().await;
    publish_again(&world, "order-1", r#"{"foo":"a"}"#).await;
    world.until_queue_is_empty().await;

    // And when the Job is over and gone: what was said of it is remembered.
    world.set_status("simple-job-a", finished("Complete", 0, "CompletionsReached", "done")).await;
    world.outcome("simple-job-a").await;
    world.namespace.jobs.delete("simple-job-a", &DeleteParams::background()).await.unwrap();
    until("the Job to be gone", PATIENCE, || async { jobs(&world).await.is_empty().then_some(()) }).await;
    publish_again(&world, "order-1", r#"{"foo":"a"}"#).await;
    world.until_queue_is_empty().await;

    assert!(jobs(&world).await.is_empty(), "no second Job");
    assert_eq!(world.rejections().await.len(), 0);
    let uids: Vec<_> = world.history("simple-job-a").await.iter().map(|m| header(m, "Job-Uid")).collect();
    assert!(uids.iter().all(|uid| *uid == text(&added["uid"])), "{uids:?}");
    assert_eq!(world.types("simple-job-a").await.iter().filter(|t| *t == "OUTCOME").count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_id_with_another_request_is_told_so() {
    let (world, _dispatcher, _folder) = or_skip!(start().await);
    world.request_as("order-1", r#"{"foo":"a"}"#).await;
    world.until_last("simple-job-a", "ADDED").await;
    let before = world.job("simple-job-a").await;
    for payload in [r#"{"foo":"a","fail":true}"#, r#"{"foo":"b","name":"simple-job-a"}"#] {
        let again = publish_again(&world, "order-1", payload).await;
        let letter = world.rejection(again).await;
        assert_eq!(header(&letter, "Job-Error"), "RequestIdReused", "{:?}", letter.headers);
        assert_eq!(&letter.payload[..], payload.as_bytes());
    }
    // Also when the Job is gone, by what was said of it.
    world.set_status("simple-job-a", finished("Complete", 0, "CompletionsReached", "done")).await;
    world.outcome("simple-job-a").await;
    assert_eq!(
        world.job("simple-job-a").await.spec.unwrap().template,
        before.spec.unwrap().template,
        "untouched"
    );
    world.namespace.jobs.delete("simple-job-a", &DeleteParams::background()).await.unwrap();
    until("the Job to be gone", PATIENCE, || async { jobs(&world).await.is_empty().then_some(()) }).await;
    let again = publish_again(&world, "order-1", r#"{"foo":"a","fail":true}"#).await;
    assert_eq!(header(&world.rejection(again).await, "Job-Error"), "RequestIdReused");
    assert!(jobs(&world).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_name_is_told_with_the_way_out() {
    let (world, _dispatcher, _folder) = or_skip!(start().await);
    world.request(r#"{"foo":"a"}"#).await;
    world.until_last("simple-job-a", "ADDED").await;
    let taken = world.request(r#"{"foo":"a"}"#).await;
    let letter = world.rejection(taken).await;
    assert_eq!(header(&letter, "Job-Error"), "NameTaken");
    assert_eq!(header(&letter, "Job-Name"), "simple-job-a");
    assert!(header(&letter, "Job-Error-Message").contains("generateName"), "{:?}", letter.headers);

    // By somebody else's Job too, which is neither touched nor spoken of.
    let mut other = world.job("simple-job-a").await;
    other.metadata = serde_json::from_value(json!({"name": "simple-job-b"})).unwrap();
    let spec = other.spec.as_mut().unwrap();
    (spec.selector, spec.template.metadata) = (None, None);
    let theirs = world.namespace.jobs.create(&PostParams::default(), &other).await.unwrap();
    let taken = world.request(r#"{"foo":"b"}"#).await;
    assert_eq!(header(&world.rejection(taken).await, "Job-Error"), "NameTaken");
    assert_eq!(world.job("simple-job-b").await.metadata.resource_version, theirs.metadata.resource_version);
    assert_eq!(world.history("simple-job-b").await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn generate_name_gives_each_request_a_name_of_its_own() {
    let (world, _dispatcher, _folder) = or_skip!(start().await);
    for _ in 0..3 {
        world.request(r#"{"foo":"a","generateName":"nightly-"}"#).await;
    }
    world.until_queue_is_empty().await;
    let names: Vec<_> = jobs(&world).await.into_iter().map(|job| job.metadata.name.unwrap()).collect();
    assert_eq!(names.len(), 3, "{names:?}");
    assert!(names.iter().all(|name| name.starts_with("nightly-")), "{names:?}");
    assert_eq!(world.rejections().await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_remembered_when_another_has_used_its_name_since() {
    let (world, _dispatcher, _folder) = or_skip!(start().await);
    for id in ["order-1", "order-2"] {
        world.request_as(id, r#"{"foo":"a"}"#).await;
        world.until_last("simple-job-a", "ADDED").await;
        world.namespace.jobs.delete("simple-job-a", &DeleteParams::background()).await.unwrap();
        world.outcome("simple-job-a").await;
    }
    publish_again(&world, "order-1", r#"{"foo":"a"}"#).await;
    world.until_queue_is_empty().await;
    assert!(jobs(&world).await.is_empty(), "no second Job of order-1");
    assert_eq!(world.types("simple-job-a").await.iter().filter(|t| *t == "ADDED").count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_comes_free_is_used_again_and_its_history_goes_on() {
    let (world, _dispatcher, _folder) = or_skip!(start().await);
    for round in 1..=3 {
        world.request(r#"{"foo":"a"}"#).await;
        world.until_last("simple-job-a", "ADDED").await;
        world.set_status("simple-job-a", finished("Complete", 0, "CompletionsReached", "done")).await;
        world.outcome("simple-job-a").await;
        until("the Job to be settled", PATIENCE, || async {
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
        until("the Job to be gone", PATIENCE, || async { jobs(&world).await.is_empty().then_some(()) }).await;
        let outcomes = world.types("simple-job-a").await.iter().filter(|t| *t == "OUTCOME").count();
        assert_eq!(outcomes, round);
    }
    assert_eq!(world.rejections().await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_loses_its_label_is_not_deleted_and_goes_on() {
    let (world, _dispatcher, _folder) = or_skip!(start().await);
    world.request(r#"{"foo":"a"}"#).await;
    world.until_last("simple-job-a", "ADDED").await;
    let patch = json!({"metadata": {"labels": {"natsjobs.dev/template": null}}});
    let patch = kube::api::Patch::Merge(&patch);
    world.namespace.jobs.patch("simple-job-a", &kube::api::PatchParams::default(), &patch).await.unwrap();
    until("the label to be back", PATIENCE, || async {
        world.job("simple-job-a").await.metadata.labels?.contains_key("natsjobs.dev/template").then_some(())
    })
    .await;
    world.set_status("simple-job-a", finished("Failed", 1, "BackoffLimitExceeded", "words")).await;
    assert_eq!(world.outcome("simple-job-a").await["result"], "Failed");
    let types = world.types("simple-job-a").await;
    assert!(!types.contains(&"DELETED".to_owned()), "{types:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_deleted_by_hand_ends_as_deleted() {
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
async fn a_job_whose_marks_were_changed_is_told_all_the_same() {
    let (world, _dispatcher, _folder) = or_skip!(start().await);
    world.request(r#"{"foo":"a"}"#).await;
    world.until_last("simple-job-a", "ADDED").await;
    let patch = json!({"metadata": {"labels": {"app.kubernetes.io/managed-by": "somebody"},
                                    "annotations": {"natsjobs.dev/request-seq": null}}});
    let patch = kube::api::Patch::Merge(&patch);
    world.namespace.jobs.patch("simple-job-a", &kube::api::PatchParams::default(), &patch).await.unwrap();
    world.set_status("simple-job-a", finished("Failed", 1, "BackoffLimitExceeded", "words")).await;
    assert_eq!(world.outcome("simple-job-a").await["result"], "Failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_settled_job_is_known_when_its_history_is_gone() {
    let (world, dispatcher, _folder) = or_skip!(start().await);
    world.request_as("order-1", r#"{"foo":"a"}"#).await;
    world.until_last("simple-job-a", "ADDED").await;
    world.set_status("simple-job-a", finished("Complete", 0, "CompletionsReached", "done")).await;
    world.outcome("simple-job-a").await;
    until("the Job to be settled", PATIENCE, || async {
        world.job("simple-job-a").await.metadata.labels?.contains_key("natsjobs.dev/outcome").then_some(())
    })
    .await;
    world.jetstream.get_stream("JOB_STATUS").await.unwrap().purge().await.unwrap();
    publish_again(&world, "order-1", r#"{"foo":"a"}"#).await;
    world.until_queue_is_empty().await;
    assert_eq!(world.history("simple-job-a").await.len(), 0, "nothing more is said of it");
    let again = publish_again(&world, "order-1", r#"{"foo":"a","fail":true}"#).await;
    assert_eq!(header(&world.rejection(again).await, "Job-Error"), "RequestIdReused");
    for text in ["request will be retried", "job metadata was changed"] {
        assert!(!dispatcher.log().contains(text), "{}", dispatcher.log());
    }
}
