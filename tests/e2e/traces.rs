//! Propagation of the W3C Trace Context from a request to its Job, its container and its status
//! events.

use async_nats::HeaderMap;
use dispatcher_tests::job_controller::managed_template;
use dispatcher_tests::or_skip;
use dispatcher_tests::test_env::{TestEnv, header};
use dispatcher_tests::wait::TIMEOUT;
use futures::StreamExt;
use serde_json::{Value, json};

use crate::attempts::modified_template;
use crate::service_client::call_service;

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const STATE: &str = "vendor=a$b";

fn traced(id: &str) -> [(&'static str, &str); 3] {
    [("traceparent", PARENT), ("tracestate", STATE), ("Nats-Msg-Id", id)]
}

pub(crate) async fn publish(env: &TestEnv, headers: &[(&str, &str)], payload: Value) -> u64 {
    let headers = headers.iter().fold(HeaderMap::new(), |mut map, (name, value)| {
        map.insert(*name, *value);
        map
    });
    let payload = payload.to_string().into();
    let sent = env.jetstream.publish_with_headers("jobs.simple.create", headers, payload).await;
    sent.unwrap().await.unwrap().sequence
}

#[tokio::test(flavor = "multi_thread")]
async fn trace_context_is_propagated_to_job_container_and_events() {
    let env = or_skip!(TestEnv::start().await);
    // The container prints FOO, in which Kubernetes expands both variables.
    let (_folder, templates) = modified_template(|simple| {
        let env = &mut simple["spec"]["job"]["spec"]["template"]["spec"]["containers"][0]["env"];
        env[0]["value"] = "$(TRACEPARENT) $(TRACESTATE)".into();
    });
    let _dispatcher = env.dispatcher().templates(templates).start().await;
    publish(&env, &traced("a"), json!({"foo": "x", "name": "traced", "fail": true})).await;
    let outcome = env.outcome("traced").await;
    let log = outcome["attempts"][0]["logTail"].as_str().unwrap_or_default();
    assert!(log.contains(&format!("{PARENT} {STATE}")), "{outcome}");
    let annotations = env.job("traced").await.metadata.annotations.unwrap();
    assert_eq!(annotations["natsjobs.dev/traceparent"], PARENT);
    assert_eq!(annotations["natsjobs.dev/tracestate"], STATE);
    let history = env.history("traced").await;
    assert!(history.len() >= 4, "too few events");
    for message in &history {
        assert_eq!(
            (header(message, "traceparent"), header(message, "tracestate")),
            (PARENT.into(), STATE.into())
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_trace_context_is_ignored() {
    let env = or_skip!(TestEnv::start().await);
    let (_folder, templates) = managed_template();
    let _dispatcher = env.dispatcher().templates(templates).start().await;
    publish(&env, &[("traceparent", "00-no-trace-01"), ("tracestate", STATE)], json!({"foo": "a"})).await;
    env.until_last("simple-job-a", "ADDED").await;
    let job = env.job("simple-job-a").await;
    assert!(job.metadata.annotations.unwrap().keys().all(|key| !key.contains("trace")));
    let message = &env.history("simple-job-a").await[0];
    assert_eq!(
        (header(message, "traceparent"), header(message, "tracestate")),
        (String::new(), String::new())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_request_with_another_trace_creates_no_second_job() {
    let env = or_skip!(TestEnv::start().await);
    env.create_streams_without_deduplication().await;
    let (_folder, templates) = managed_template();
    let _dispatcher = env.dispatcher().templates(templates).start().await;
    publish(&env, &traced("same"), json!({"foo": "a"})).await;
    env.until_last("simple-job-a", "ADDED").await;
    let other = PARENT.replace("b7ad", "beef");
    publish(&env, &[("traceparent", &other), ("Nats-Msg-Id", "same")], json!({"foo": "a"})).await;
    env.until_queue_is_empty().await;
    assert!(env.dead_letters().await.is_empty());
    let annotations = env.job("simple-job-a").await.metadata.annotations.unwrap();
    assert_eq!(annotations["natsjobs.dev/traceparent"], PARENT, "the first request created the Job");
}

#[tokio::test(flavor = "multi_thread")]
async fn trace_context_is_propagated_to_dead_letter_rejection_notice_and_submitted_job() {
    let env = or_skip!(TestEnv::start().await);
    let (_folder, templates) = managed_template();
    let _dispatcher = env.dispatcher().templates(templates).start().await;
    let mut notices = env.client.subscribe("jobs.simple.status._rejected").await.unwrap();
    env.client.flush().await.unwrap();
    let bad = publish(&env, &traced("bad"), json!({"foo": 7})).await;
    let dead_letter = env.dead_letter(bad).await;
    assert_eq!(
        (header(&dead_letter, "traceparent"), header(&dead_letter, "tracestate")),
        (PARENT.into(), STATE.into())
    );
    let notice = tokio::time::timeout(TIMEOUT, notices.next()).await.expect("no rejection notice").unwrap();
    assert_eq!(notice.headers.unwrap().get("traceparent").unwrap().as_str(), PARENT);

    let headers = [("traceparent", PARENT), ("tracestate", STATE)];
    call_service(&env.client, "submit", &headers, r#"{"foo":"a"}"#).await.unwrap();
    env.until_last("simple-job-a", "ADDED").await;
    assert_eq!(header(&env.history("simple-job-a").await[0], "traceparent"), PARENT);
}
