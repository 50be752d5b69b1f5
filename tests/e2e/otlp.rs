//! Spans exported by OTLP to a test receiver.

use dispatcher_tests::job_controller::managed_template;
use dispatcher_tests::otlp::{Received, Receiver};
use dispatcher_tests::test_env::{TestEnv, header};
use dispatcher_tests::wait::TIMEOUT;
use dispatcher_tests::{or_skip, ports, until};
use serde_json::json;

use crate::attempts::modified_template;
use crate::traces::publish;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

/// Waits for `count` spans of a trace and returns them sorted by name.
async fn spans(receiver: &Receiver, trace: &str, count: usize) -> Vec<Received> {
    until(&format!("{count} spans of {trace}"), TIMEOUT, || async {
        let mut spans: Vec<_> = receiver.spans().into_iter().filter(|span| span.trace_id == trace).collect();
        spans.sort_by(|a, b| a.name.cmp(&b.name));
        if spans.len() == count { Ok(spans) } else { Err(spans) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn request_job_and_container_are_in_one_trace() {
    let env = or_skip!(TestEnv::start().await);
    let receiver = Receiver::start().await;
    let (_folder, templates) = modified_template(|simple| {
        let env = &mut simple["spec"]["job"]["spec"]["template"]["spec"]["containers"][0]["env"];
        env[0]["value"] = "$(TRACEPARENT)".into();
    });
    let dispatcher = env.dispatcher().templates(templates).env(ENDPOINT, &receiver.endpoint());
    let _dispatcher = dispatcher.env("OTEL_BSP_SCHEDULE_DELAY", "100").start().await;
    publish(&env, &[("traceparent", PARENT)], json!({"foo": "x", "name": "traced", "fail": true})).await;
    let outcome = env.outcome("traced").await;

    let [run, process] = &spans(&receiver, TRACE, 2).await[..] else { panic!("expected two spans") };
    assert_eq!((process.name.as_str(), run.name.as_str()), ("process jobs.simple.create", "job simple"));
    assert_eq!(process.parent_id, "b7ad6b7169203331", "the parent is not the span of the request");
    assert_eq!(run.parent_id, process.span_id);
    assert_eq!((&process.error, process.attributes["dispatcher.result"].as_str()), (&None, "created"));
    assert!(run.error.as_ref().is_some_and(|error| error.contains("backoff limit")), "{run:?}");
    assert_eq!(run.attributes["k8s.job.name"], "traced");
    assert_eq!(run.attributes["k8s.job.uid"], env.job("traced").await.metadata.uid.unwrap());
    assert_eq!(run.attributes["dispatcher.outcome.reason"], "BackoffLimitExceeded");
    assert!([process, run].iter().all(|span| span.attributes["service.name"] == "dispatcher"), "{run:?}");

    // The container continues the span of the Job. Status events continue the span of the delivery.
    let log = outcome["attempts"][0]["logTail"].as_str().unwrap_or_default();
    assert!(log.contains(&format!("00-{TRACE}-{}-01", run.span_id)), "{outcome}");
    for message in env.history("traced").await {
        assert_eq!(header(&message, "traceparent"), format!("00-{TRACE}-{}-01", process.span_id));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn request_without_trace_starts_one_and_a_rejection_is_an_error_span() {
    let env = or_skip!(TestEnv::start().await);
    let receiver = Receiver::start().await;
    let (_folder, templates) = managed_template();
    let dispatcher = env.dispatcher().templates(templates).env(ENDPOINT, &receiver.endpoint());
    let dispatcher = dispatcher.env("OTEL_SERVICE_NAME", "jobs-of-tests").start().await;
    let sequence = env.request(r#"{"foo":7}"#).await;
    let dead_letter = header(&env.dead_letter(sequence).await, "traceparent");
    // An unsampled trace context gets no span and is propagated unchanged.
    let not_sampled = PARENT.replace("-01", "-00");
    publish(&env, &[("traceparent", &not_sampled)], json!({"foo": "a"})).await;
    env.until_last("simple-job-a", "ADDED").await;
    assert_eq!(header(&env.history("simple-job-a").await[0], "traceparent"), not_sampled);
    // The shutdown exports the remaining spans.
    assert_eq!(dispatcher.terminate().await, Some(0));
    let [rejected] = &receiver.spans()[..] else { panic!("expected one span: {:?}", receiver.spans()) };
    assert_eq!(dead_letter, format!("00-{}-{}-01", rejected.trace_id, rejected.span_id));
    assert_eq!(
        (rejected.parent_id.as_str(), rejected.attributes["dispatcher.result"].as_str()),
        ("", "rejected")
    );
    assert!(rejected.error.is_some());
    assert_eq!(rejected.attributes["service.name"], "jobs-of-tests");
}

#[tokio::test(flavor = "multi_thread")]
async fn unreachable_receiver_delays_no_job() {
    let env = or_skip!(TestEnv::start().await);
    let (_folder, templates) = modified_template(|_| {});
    let unused = format!("http://127.0.0.1:{}", ports::free());
    let dispatcher = env.dispatcher().templates(templates).env(ENDPOINT, &unused);
    let dispatcher =
        dispatcher.env("OTEL_BSP_SCHEDULE_DELAY", "100").env("OTEL_BSP_MAX_QUEUE_SIZE", "2").start().await;
    for n in 0..10 {
        env.request(format!(r#"{{"foo":"{n}"}}"#)).await;
    }
    for n in 0..10 {
        assert_eq!(env.outcome(&format!("simple-job-{n}")).await["result"], "Complete");
    }
    assert_eq!(dispatcher.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_otlp_setting_is_refused_at_start() {
    let env = or_skip!(TestEnv::start().await);
    for (name, value, fragment) in [
        (ENDPOINT, "no-url", ENDPOINT),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s", "milliseconds"),
    ] {
        let dispatcher = env.dispatcher().env(ENDPOINT, "http://127.0.0.1:4318").env(name, value);
        let Err(error) = dispatcher.try_start().await else {
            panic!("the dispatcher started with {name}={value}")
        };
        assert!(error.contains(name) && error.contains(fragment), "{error}");
    }
}
