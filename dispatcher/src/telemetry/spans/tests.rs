use std::collections::HashMap;

use opentelemetry::trace::{SpanId, Status};
use serde_json::json;

use dispatcher_core::testing::a_job;

use super::*;
use dispatcher_core::{
    contract::{event::Outcome, job::JobState, names::TemplateName},
    request::{Disposition, Envelope, Identity},
};

fn request() -> Trace {
    Trace::from_headers(Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"), Some("v=1")).unwrap()
}

fn delivered(times: i64) -> Delivered<'static> {
    Delivered { stream: "JOBS 2026", sequence: 7, times }
}

fn endpoint_of(variables: &[(&str, &str)]) -> Result<Option<(&'static str, String)>, String> {
    let variables: HashMap<_, _> = variables.iter().copied().collect();
    endpoint(|name| variables.get(name).map(|value| (*value).to_owned())).map_err(|error| error.to_string())
}

/// With spans, to an endpoint where nobody listens.
fn on() -> Spans {
    let client = http::Client::new(Handle::current(), "http:", Duration::from_millis(10)).unwrap();
    let exporter = SpanExporter::builder().with_http().with_http_client(client).build().unwrap();
    let sampler = Config::default().sampler;
    Spans(Some(Arc::new(Sender { processor: BatchSpanProcessor::builder(exporter).build(), sampler })))
}

#[test]
fn without_an_endpoint_or_where_they_are_switched_off_no_spans_are_sent() {
    let all = (ENDPOINT, "http://a:4318");
    assert_eq!(endpoint_of(&[]), Ok(None));
    assert_eq!(endpoint_of(&[all, ("OTEL_SDK_DISABLED", "TRUE")]), Ok(None));
    assert_eq!(endpoint_of(&[all, ("OTEL_TRACES_EXPORTER", "none")]), Ok(None));
    assert_eq!(endpoint_of(&[all]), Ok(Some((ENDPOINT, "http://a:4318".into()))));
    let spans = (TRACES_ENDPOINT, "http://b:4318/v1/traces");
    assert_eq!(endpoint_of(&[all, spans]), Ok(Some((TRACES_ENDPOINT, "http://b:4318/v1/traces".into()))));
}

#[test]
fn a_protocol_that_is_not_spoken_is_told_at_the_start() {
    let error = endpoint_of(&[(ENDPOINT, "http://a:4317"), (PROTOCOL, "grpc")]).unwrap_err();
    assert!(error.contains(PROTOCOL) && error.contains("grpc") && error.contains("4318"), "{error}");
    assert!(endpoint_of(&[(ENDPOINT, "http://a:4318"), (PROTOCOL, "http/protobuf")]).is_ok());
}

#[test]
fn without_spans_a_trace_is_passed_on_as_it_came() {
    let carried = Spans::default().context(Some(&request()), &delivered(1));
    assert_eq!((carried.trace, carried.in_containers), (Some(request()), Some(request())));
    assert_eq!(
        Spans::default().context(None, &delivered(1)),
        dispatcher_core::contract::trace::TraceContext::default()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn with_spans_what_follows_belongs_to_the_delivery_and_the_run() {
    let spans = on();
    let carried = spans.context(Some(&request()), &delivered(1));
    let (on_job, in_containers) = (carried.trace.clone().unwrap(), carried.in_containers.unwrap());
    for trace in [&on_job, &in_containers] {
        assert_eq!((trace.trace_id, trace.tracestate()), (request().trace_id, Some("v=1")));
        assert_ne!(trace.parent_id, request().parent_id);
    }
    let state = JobState { trace: carried.trace, ..a_job("u", 1, json!({})) };
    let run = record::run(
        &JobSpan { state: &state, outcome: &state.outcome_of_deletion() },
        &on_job,
        SystemTime::now(),
    );
    assert_eq!(run.span_context.span_id().to_bytes(), in_containers.parent_id);
    assert_eq!(run.parent_span_id.to_bytes(), on_job.parent_id);

    let root = spans.context(None, &delivered(1)).trace.unwrap();
    assert_eq!(spans.context(None, &delivered(2)).trace.unwrap().trace_id, root.trace_id);
    let not_sampled = Trace::new([1; 16], [2; 8], false).unwrap();
    let carried = spans.context(Some(&not_sampled), &delivered(1));
    assert_eq!((carried.trace, carried.in_containers), (Some(not_sampled.clone()), Some(not_sampled)));
}

#[test]
fn a_delivery_tells_of_its_request_and_of_its_answer() {
    let envelope =
        Envelope { payload: b"{}", message_id: Some("id-1"), stream: "s", sequence: 7, stored_nanos: 0 };
    let (template, identity) = (TemplateName::try_from("simple").unwrap(), Identity::of(&envelope).unwrap());
    let (parent, now) = (request(), SystemTime::now());
    let answer = DeliverySpan {
        template: &template,
        identity: &identity,
        parent: Some(&parent),
        queued: Duration::from_millis(1500),
        began: now,
        ended: now,
        disposition: &Disposition::Retrying("no answer".to_owned()),
    };
    let span = record::delivery(&answer, &parent.with_parent([9; 8]));
    assert_eq!(span.name, "process jobs.simple.create");
    assert_eq!(
        (span.span_context.span_id(), span.parent_span_id.to_bytes()),
        (SpanId::from_bytes([9; 8]), parent.parent_id)
    );
    assert_eq!(span.status, Status::error("no answer"));
    let attributes: HashMap<_, _> =
        span.attributes.iter().map(|pair| (pair.key.as_str(), pair.value.to_string())).collect();
    for (key, value) in [
        ("messaging.destination.name", "jobs.simple.create"),
        ("messaging.message.id", "id-1"),
        ("dispatcher.request.queued_ms", "1500"),
        ("dispatcher.result", "retrying"),
    ] {
        assert_eq!(attributes[key], value);
    }
    let answer = DeliverySpan { parent: None, disposition: &Disposition::Created, ..answer };
    let root = record::delivery(&answer, &parent);
    assert_eq!((root.parent_span_id, root.status), (SpanId::INVALID, Status::Unset));
}

#[test]
fn a_run_lasts_from_the_creation_of_its_job_to_its_end() {
    let at = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600 + seconds);
    let status = json!({
        "startTime": "2026-01-01T00:00:05Z", "failed": 1,
        "conditions": [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "M",
                        "lastTransitionTime": "2026-01-01T00:00:09Z"}],
    });
    let state = JobState { creation_time: Some(at(2)), ..a_job("u", 1, status) };
    let outcome = state.outcome().unwrap();
    let span =
        |state: &JobState, outcome: &Outcome| record::run(&JobSpan { state, outcome }, &request(), at(60));
    let run = span(&state, &outcome);
    assert_eq!((run.start_time, run.end_time, run.status), (at(2), at(9), Status::error("M")));
    // One that is in no list any more.
    let gone = JobState { creation_time: None, ..state.clone() };
    assert_eq!(span(&gone, &outcome).start_time, at(5));
    assert_eq!(span(&gone, &gone.outcome_of_deletion()).end_time, at(60));
    // Kubernetes' times are whole seconds.
    let late = JobState { creation_time: Some(at(9) + Duration::from_millis(1)), ..state };
    assert_eq!(span(&late, &outcome).end_time, late.creation_time.unwrap());
}
