//! Dead letters: each has its own subject, costs the same however many there are, and keeps a
//! bounded part of its request.

use async_nats::jetstream::stream;
use dispatcher_tests::checker::history::sha256;
use dispatcher_tests::job_controller::managed_template;
use dispatcher_tests::test_env::{TestEnv, header, shipped_config};
use dispatcher_tests::wait::TIMEOUT;
use dispatcher_tests::{or_skip, until};
use futures::StreamExt;
use serde_json::json;

use crate::service_client::call_service;

const KEPT: usize = 8 * 1024;

/// A request without its required parameter.
const BAD: &str = "{}";

/// Stores this many dead letters of earlier requests.
async fn fill_dead_letters(env: &TestEnv, count: usize) {
    let mut acks = futures::stream::iter(0..count)
        .map(|n| async move {
            let subject = format!("jobs.simple.rejected.{}", 1_000_000 + n);
            env.jetstream.publish(subject, "{}".into()).await.unwrap().await.unwrap();
        })
        .buffer_unordered(256);
    while acks.next().await.is_some() {}
}

/// The calls of the `JetStream` API that read `JOB_REJECTED` while a dispatcher rejects 50 requests
/// that another one may have seen.
async fn reads_of_a_restart(earlier: usize) -> Vec<String> {
    let env = TestEnv::start().await.unwrap();
    assert_eq!(env.dispatcher().start().await.terminate().await, Some(0));
    fill_dead_letters(&env, earlier).await;
    for _ in 0..50 {
        env.request(BAD).await;
    }
    let mut calls = env.client.subscribe("$JS.API.*.*.*.JOB_REJECTED").await.unwrap();
    let mut consumers = env.client.subscribe("$JS.API.CONSUMER.*.JOB_REJECTED.>").await.unwrap();
    let mut creates = env.client.subscribe("$JS.API.CONSUMER.CREATE.JOB_REJECTED").await.unwrap();
    env.client.flush().await.unwrap();
    let dispatcher = env.dispatcher().start().await;
    env.until_queue_is_empty().await;
    assert_eq!(dispatcher.terminate().await, Some(0), "{}", dispatcher.log());
    env.client.flush().await.unwrap();
    for subscription in [&mut calls, &mut consumers, &mut creates] {
        subscription.unsubscribe().await.unwrap();
    }
    let mut calls = calls.chain(consumers).chain(creates);
    let mut seen = vec![];
    while let Some(call) = calls.next().await {
        seen.push(call.subject.to_string());
    }
    seen.sort();
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn rejection_after_a_restart_reads_the_same_however_many_dead_letters_exist() {
    or_skip!(TestEnv::start().await);
    let fresh = reads_of_a_restart(0).await;
    assert_eq!(fresh, vec!["$JS.API.STREAM.MSG.GET.JOB_REJECTED"; fresh.len()], "one read per request");
    assert!((50..=100).contains(&fresh.len()), "{} reads for 50 requests", fresh.len());
    assert_eq!(reads_of_a_restart(20_000).await.len(), fresh.len());
}

/// Messages that are not the request's dead letter: of an earlier stream `JOBS`, of another program
/// on the same account, and one that no client library can decode.
#[tokio::test(flavor = "multi_thread")]
async fn other_message_on_the_subject_is_not_taken_for_the_dead_letter() {
    let env = or_skip!(TestEnv::start().await);
    let _dispatcher = env.dispatcher().start().await;
    let first = env.request(BAD).await;
    env.dead_letter(first).await;
    let others: [&[(&str, &str)]; 3] = [&[], &[("Job-Request-Time", "1")], &[("Job-Request-Time", "later")]];
    for (n, others) in others.iter().enumerate() {
        let sequence = first + 1 + n as u64;
        let mut headers = async_nats::HeaderMap::new();
        others.iter().for_each(|(name, value)| headers.insert(*name, *value));
        let subject = format!("jobs.simple.rejected.{sequence}");
        let stored = env.jetstream.publish_with_headers(subject.clone(), headers, "squat".into()).await;
        stored.unwrap().await.unwrap();

        assert_eq!(env.request(BAD).await, sequence);
        env.until_queue_is_empty().await;

        let stream = env.jetstream.get_stream_no_info("JOB_REJECTED").await.unwrap();
        let last = stream.get_last_raw_message_by_subject(&subject).await.unwrap();
        assert_eq!(
            (header(&last, "Job-Error"), &last.payload[..]),
            ("InvalidRequest".into(), BAD.as_bytes())
        );
        let count = env.dead_letters().await.iter().filter(|m| m.subject.as_str() == subject).count();
        assert_eq!(count, 2, "the other message stays, and one dead letter follows");
    }
}

/// The sequences of a recreated stream begin again with 1.
#[tokio::test(flavor = "multi_thread")]
async fn dead_letter_of_an_earlier_request_stream_hides_no_request() {
    let env = or_skip!(TestEnv::start().await);
    let (_folder, templates) = managed_template();
    let dispatcher = env.dispatcher().templates(templates).start().await;
    let sequence = env.request(BAD).await;
    env.dead_letter(sequence).await;
    env.until_queue_is_empty().await;
    assert_eq!(dispatcher.terminate().await, Some(0));
    let config = env.jetstream.get_stream("JOBS").await.unwrap().cached_info().config.clone();
    env.jetstream.delete_stream("JOBS").await.unwrap();
    env.jetstream.create_stream(config).await.unwrap();

    // Both have been seen before, as far as the next dispatcher knows.
    assert_eq!(env.request(r#"{"foo":"a"}"#).await, sequence);
    let bad = env.request(BAD).await;
    dispatcher.restart().await;

    env.until_last("simple-job-a", "ADDED").await;
    env.dead_letter(bad).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn long_payload_is_kept_in_part_with_its_length_and_hash() {
    let env = or_skip!(TestEnv::start().await);
    let _dispatcher = env.dispatcher().start().await;
    let text = "ä".repeat(20_000);
    for (payload, kept) in [
        (format!("x{text}"), KEPT - 1),
        (format!("xy{text}"), KEPT),
        (json!({ "unknown": text }).to_string(), KEPT),
        ("short".to_owned(), 5),
        (String::new(), 0),
    ] {
        let sequence = env.request(payload.clone()).await;
        let dead_letter = env.dead_letter(sequence).await;
        let found = String::from_utf8(dead_letter.payload.to_vec()).expect("a character was cut");
        assert!(payload.starts_with(&found));
        assert_eq!(found.len(), kept - usize::from(!payload.is_char_boundary(kept)));
        assert_eq!(header(&dead_letter, "Job-Payload-Size"), payload.len().to_string());
        assert_eq!(header(&dead_letter, "Job-Payload-Sha256"), sha256(payload.as_bytes()));
    }
}

/// `JOBS` and `JOB_REJECTED` have reached their byte limits.
#[tokio::test(flavor = "multi_thread")]
async fn cancel_and_rejections_work_while_requests_and_dead_letters_are_full() {
    let env = or_skip!(TestEnv::start().await);
    let (_folder, templates) = managed_template();
    let _dispatcher = env.dispatcher().templates(templates).start().await;
    env.request(r#"{"foo":"a"}"#).await;
    env.until_last("simple-job-a", "ADDED").await;
    env.until_queue_is_empty().await;
    let limit = async |name: &str, max_bytes: i64| {
        let config = env.jetstream.get_stream(name).await.unwrap().cached_info().config.clone();
        env.jetstream.update_stream(stream::Config { max_bytes, ..config }).await.unwrap();
    };
    limit("JOB_REJECTED", 20_000).await;
    for _ in 0..8 {
        env.request(format!("x{}", "y".repeat(10_000))).await;
    }
    env.until_queue_is_empty().await;
    let rejected = env.jetstream.get_stream("JOB_REJECTED").await.unwrap().cached_info().state.clone();
    assert!(rejected.messages < 3 && rejected.first_sequence > 5, "the oldest are dropped: {rejected:?}");
    limit("JOBS", 10).await;
    until("JOBS to refuse requests", TIMEOUT, || async {
        let sent = env.jetstream.publish("jobs.simple.create", BAD.into()).await.unwrap();
        sent.await.err().map(drop)
    })
    .await;

    let answer = call_service(&env.client, "cancel", &[], r#"{"name":"simple-job-a"}"#).await.unwrap();
    assert_eq!(answer["result"], "deleted");
    assert_eq!(env.outcome("simple-job-a").await["result"], "Cancelled");
}

/// An older version stored all dead letters of a template on one subject, without limits.
#[tokio::test(flavor = "multi_thread")]
async fn stream_of_an_older_version_gets_the_new_subject_and_keeps_its_dead_letters() {
    let env = or_skip!(TestEnv::start().await);
    let mut older = shipped_config("JOB_REJECTED");
    for (field, value) in
        [("subjects", json!(["jobs.*.rejected"])), ("max_bytes", json!(-1)), ("max_msg_size", json!(131_072))]
    {
        older[field] = value;
    }
    env.create_stream(&older).await;
    env.jetstream.publish("jobs.simple.rejected", BAD.into()).await.unwrap().await.unwrap();
    let _dispatcher = env.dispatcher().start().await;
    let sequence = env.request(BAD).await;
    assert_eq!(header(&env.dead_letter(sequence).await, "Job-Error"), "InvalidRequest");
    let stream = env.jetstream.get_stream("JOB_REJECTED").await.unwrap();
    assert_eq!(stream.cached_info().config.subjects, ["jobs.*.rejected", "jobs.*.rejected.*"]);
    assert_eq!(stream.cached_info().state.messages, 2, "the older dead letter stays");
}

/// `JetStream` compares request ids over all templates and publishers.
#[tokio::test(flavor = "multi_thread")]
async fn request_with_an_id_that_another_client_has_used_is_not_swallowed() {
    let env = or_skip!(TestEnv::start().await);
    let _dispatcher = env.dispatcher().start().await;
    let publish = async |template: &str, payload: &'static str| {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("Nats-Msg-Id", "order-17");
        let subject = format!("jobs.{template}.create");
        env.jetstream.publish_with_headers(subject, headers, payload.into()).await.unwrap().await.unwrap()
    };
    assert!(!publish("memory", "{}").await.duplicate);
    until("the deduplication window to end", TIMEOUT, || async {
        (!publish("simple", r#"{"foo":"a"}"#).await.duplicate).then_some(())
    })
    .await;
    env.outcome("simple-job-a").await;
    // The same request again is the same Job.
    let again = publish("simple", r#"{"foo":"a"}"#).await;
    env.until_queue_is_empty().await;
    let types = env.event_types("simple-job-a").await;
    assert_eq!(types.iter().filter(|type_| *type_ == "ADDED").count(), 1, "{types:?}");
    assert!(env.dead_letters().await.is_empty(), "request {} was rejected", again.sequence);
}
