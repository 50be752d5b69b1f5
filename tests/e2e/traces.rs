//! W3C Trace Context from the request to the container, and to all that is told of it.

use async_nats::HeaderMap;
use dispatcher_tests::or_skip;
use futures::StreamExt;
use serde_json::{Value, json};

use crate::asking::ask;
use crate::explanations::template;
use dispatcher_tests::job_controller::managed_template;
use dispatcher_tests::test_env::{TestEnv as World, header};
use dispatcher_tests::wait::TIMEOUT as PATIENCE;

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const STATE: &str = "vendor=a$b";

fn traced(id: &str) -> [(&'static str, &str); 3] {
    [("traceparent", PARENT), ("tracestate", STATE), ("Nats-Msg-Id", id)]
}

pub(crate) async fn publish(world: &World, headers: &[(&str, &str)], payload: Value) -> u64 {
    let headers = headers.iter().fold(HeaderMap::new(), |mut map, (name, value)| {
        map.insert(*name, *value);
        map
    });
    let payload = payload.to_string().into();
    let sent = world.jetstream.publish_with_headers("jobs.simple.create", headers, payload).await;
    sent.unwrap().await.unwrap().sequence
}

#[tokio::test(flavor = "multi_thread")]
async fn the_trace_of_a_request_goes_to_its_job_its_container_and_its_events() {
    let world = or_skip!(World::start().await);
    // What the container finds in its environment is in the line that it prints.
    let (_folder, templates) = template(|simple| {
        let env = &mut simple["spec"]["job"]["spec"]["template"]["spec"]["containers"][0]["env"];
        env[0]["value"] = "$(TRACEPARENT) $(TRACESTATE)".into();
    });
    let _dispatcher = world.dispatcher().templates(templates).start().await;
    publish(&world, &traced("a"), json!({"foo": "x", "name": "traced", "fail": true})).await;
    let outcome = world.outcome("traced").await;
    let log = outcome["attempts"][0]["logTail"].as_str().unwrap_or_default();
    assert!(log.contains(&format!("{PARENT} {STATE}")), "{outcome}");
    let annotations = world.job("traced").await.metadata.annotations.unwrap();
    assert_eq!(annotations["natsjobs.dev/traceparent"], PARENT);
    assert_eq!(annotations["natsjobs.dev/tracestate"], STATE);
    let history = world.history("traced").await;
    assert!(history.len() >= 4, "ADDED, ATTEMPT and OUTCOME among them");
    for message in &history {
        assert_eq!(
            (header(message, "traceparent"), header(message, "tracestate")),
            (PARENT.into(), STATE.into())
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_without_a_valid_trace_is_a_job_like_any_other() {
    let world = or_skip!(World::start().await);
    let (_folder, templates) = managed_template();
    let _dispatcher = world.dispatcher().templates(templates).start().await;
    publish(&world, &[("traceparent", "00-no-trace-01"), ("tracestate", STATE)], json!({"foo": "a"})).await;
    world.until_last("simple-job-a", "ADDED").await;
    let job = world.job("simple-job-a").await;
    assert!(job.metadata.annotations.unwrap().keys().all(|key| !key.contains("trace")));
    let message = &world.history("simple-job-a").await[0];
    assert_eq!(
        (header(message, "traceparent"), header(message, "tracestate")),
        (String::new(), String::new())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_trace_is_no_part_of_a_requests_identity() {
    let world = or_skip!(World::start().await);
    world.create_streams_without_deduplication().await;
    let (_folder, templates) = managed_template();
    let _dispatcher = world.dispatcher().templates(templates).start().await;
    publish(&world, &traced("same"), json!({"foo": "a"})).await;
    world.until_last("simple-job-a", "ADDED").await;
    let other = PARENT.replace("b7ad", "beef");
    publish(&world, &[("traceparent", &other), ("Nats-Msg-Id", "same")], json!({"foo": "a"})).await;
    world.until_queue_is_empty().await;
    assert!(world.dead_letters().await.is_empty());
    let annotations = world.job("simple-job-a").await.metadata.annotations.unwrap();
    assert_eq!(annotations["natsjobs.dev/traceparent"], PARENT, "that of the request that made it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejection_and_an_answered_request_tell_their_trace() {
    let world = or_skip!(World::start().await);
    let (_folder, templates) = managed_template();
    let _dispatcher = world.dispatcher().templates(templates).start().await;
    let mut notices = world.client.subscribe("jobs.simple.status._rejected").await.unwrap();
    world.client.flush().await.unwrap();
    let bad = publish(&world, &traced("bad"), json!({"foo": 7})).await;
    let letter = world.dead_letter(bad).await;
    assert_eq!(
        (header(&letter, "traceparent"), header(&letter, "tracestate")),
        (PARENT.into(), STATE.into())
    );
    let notice = tokio::time::timeout(PATIENCE, notices.next()).await.expect("a notice").unwrap();
    assert_eq!(notice.headers.unwrap().get("traceparent").unwrap().as_str(), PARENT);

    let headers = [("traceparent", PARENT), ("tracestate", STATE)];
    ask(&world.client, "submit", &headers, r#"{"foo":"a"}"#).await.unwrap();
    world.until_last("simple-job-a", "ADDED").await;
    assert_eq!(header(&world.history("simple-job-a").await[0], "traceparent"), PARENT);
}
