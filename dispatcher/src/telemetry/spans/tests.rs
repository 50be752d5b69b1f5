use std::collections::HashMap;

use super::*;

fn request() -> Trace {
    Trace::from_headers(Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"), Some("v=1")).unwrap()
}

fn delivered(times: i64) -> Delivered<'static> {
    Delivered { stream: "JOBS 2026", sequence: 7, times }
}

fn variables(list: &[(&'static str, &str)]) -> impl Fn(&str) -> Option<String> {
    let map: HashMap<_, _> = list.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    move |name| map.get(name).cloned()
}

fn endpoint_of(list: &[(&'static str, &str)]) -> Option<(&'static str, String)> {
    endpoint(variables(list))
}

#[test]
fn no_endpoint_is_used_if_none_is_set_or_spans_are_off() {
    let all = (ENDPOINT, "http://a:4318");
    assert_eq!(endpoint_of(&[]), None);
    assert_eq!(endpoint_of(&[all, ("OTEL_SDK_DISABLED", "TRUE")]), None);
    assert_eq!(endpoint_of(&[all, ("OTEL_TRACES_EXPORTER", "none")]), None);
    assert_eq!(endpoint_of(&[all]), Some((ENDPOINT, "http://a:4318".into())));
    let traces = (TRACES_ENDPOINT, "http://b:4318/v1/traces");
    assert_eq!(endpoint_of(&[all, traces]), Some((TRACES_ENDPOINT, "http://b:4318/v1/traces".into())));
}

#[test]
fn trace_context_is_passed_on_unchanged_without_an_exporter() {
    let context = Spans::default().context(Some(&request()), &delivered(1));
    assert_eq!((context.trace, context.in_containers), (Some(request()), Some(request())));
    assert_eq!(Spans::default().context(None, &delivered(1)), TraceContext::default());
}

#[cfg(feature = "otlp")]
mod with_exporter {
    use dispatcher_core::{request::Envelope, testing::a_job};
    use opentelemetry::trace::{SpanId, Status};
    use opentelemetry_otlp::{SpanExporter, WithHttpConfig};
    use opentelemetry_sdk::trace::BatchSpanProcessor;
    use serde_json::json;
    use tokio::runtime::Handle;

    use super::*;

    /// Spans with an exporter whose endpoint does not exist.
    fn exporting() -> Spans {
        let client = http::Client::new(Handle::current(), "http:", Duration::from_millis(10)).unwrap();
        let exporter = SpanExporter::builder().with_http().with_http_client(client).build().unwrap();
        Spans::new(BatchSpanProcessor::builder(exporter).build())
    }

    #[test]
    fn unsupported_protocol_is_an_error_that_names_the_supported_one() {
        const NAME: &str = "OTEL_EXPORTER_OTLP_PROTOCOL";
        let check = |value| otlp::check_protocol(variables(&[(NAME, value)]));
        let error = check("grpc").unwrap_err().to_string();
        assert!(error.contains(NAME) && error.contains("grpc") && error.contains("4318"), "{error}");
        assert!(check("http/protobuf").is_ok());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn delivery_and_job_continue_the_trace_of_the_request() {
        let spans = exporting();
        let context = spans.context(Some(&request()), &delivered(1));
        let (on_job, in_containers) = (context.trace.clone().unwrap(), context.in_containers.unwrap());
        for trace in [&on_job, &in_containers] {
            assert_eq!((trace.trace_id, trace.tracestate()), (request().trace_id, Some("v=1")));
            assert_ne!(trace.parent_id, request().parent_id);
        }
        let state = JobState { trace: context.trace, ..a_job("u", 1, json!({})) };
        let job = JobSpan { state: &state, outcome: &state.outcome_of_deletion() };
        let span = record::job(&job, &on_job, SystemTime::now());
        assert_eq!(span.span_context.span_id().to_bytes(), in_containers.parent_id);
        assert_eq!(span.parent_span_id.to_bytes(), on_job.parent_id);

        let root = spans.context(None, &delivered(1)).trace.unwrap();
        assert_eq!(spans.context(None, &delivered(2)).trace.unwrap().trace_id, root.trace_id);
        let not_sampled = Trace::new([1; 16], [2; 8], false).unwrap();
        let context = spans.context(Some(&not_sampled), &delivered(1));
        assert_eq!((context.trace, context.in_containers), (Some(not_sampled.clone()), Some(not_sampled)));
    }

    #[test]
    fn delivery_span_has_the_request_and_the_result() {
        let envelope =
            Envelope { payload: b"{}", message_id: Some("id-1"), stream: "s", sequence: 7, stored_nanos: 0 };
        let template = TemplateName::try_from("simple").unwrap();
        let identity = Identity::of(&envelope).unwrap();
        let (parent, now) = (request(), SystemTime::now());
        let delivery = DeliverySpan {
            template: &template,
            subject: "jobs.simple.create",
            identity: &identity,
            parent: Some(&parent),
            queued: Duration::from_millis(1500),
            began: now,
            ended: now,
            disposition: &Disposition::Retrying("no answer".to_owned()),
        };
        let span = record::delivery(&delivery, &parent.with_parent([9; 8]));
        assert_eq!(span.name, "process jobs.simple.create");
        assert_eq!(span.span_context.span_id(), SpanId::from_bytes([9; 8]));
        assert_eq!(span.parent_span_id.to_bytes(), parent.parent_id);
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
        let delivery = DeliverySpan { parent: None, disposition: &Disposition::Created, ..delivery };
        let root = record::delivery(&delivery, &parent);
        assert_eq!((root.parent_span_id, root.status), (SpanId::INVALID, Status::Unset));
    }

    #[test]
    fn job_span_lasts_from_creation_to_end() {
        let at = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600 + seconds);
        let status = json!({
            "startTime": "2026-01-01T00:00:05Z", "failed": 1,
            "conditions": [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded",
                            "message": "M", "lastTransitionTime": "2026-01-01T00:00:09Z"}],
        });
        let state = JobState { creation_time: Some(at(2)), ..a_job("u", 1, status) };
        let outcome = state.outcome().unwrap();
        let span = |state: &JobState, outcome: &Outcome| {
            record::job(&JobSpan { state, outcome }, &request(), at(60))
        };
        let job = span(&state, &outcome);
        assert_eq!((job.start_time, job.end_time, job.status), (at(2), at(9), Status::error("M")));
        // A deleted Job's state comes from its last status event, without the creation time.
        let deleted = JobState { creation_time: None, ..state.clone() };
        assert_eq!(span(&deleted, &outcome).start_time, at(5));
        assert_eq!(span(&deleted, &deleted.outcome_of_deletion()).end_time, at(60));
        // Truncated to seconds, the end is earlier than the creation.
        let late = JobState { creation_time: Some(at(9) + Duration::from_millis(1)), ..state };
        assert_eq!(span(&late, &outcome).end_time, late.creation_time.unwrap());
    }
}
