//! What happened → the span that tells of it. Pure.
//!
//! Names and attributes as in the semantic conventions of OpenTelemetry for messaging and Kubernetes; what they have no name
//! for is under `dispatcher.`.

use std::time::{Duration, SystemTime};

use opentelemetry::{
    InstrumentationScope, KeyValue, SpanId, TraceFlags, TraceId,
    trace::{SpanContext, SpanKind, Status, TraceState},
};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::telemetry::spans::ids;
use dispatcher_core::{
    contract::{
        event::{Outcome, OutcomeResult},
        job::JobState,
        names::TemplateName,
        trace::Trace,
    },
    request::{Disposition, Identity},
};

/// What a delivery's span is named for the sampler, which knows no template.
pub(super) const DELIVERY: &str = "process jobs";

/// How a delivery was answered.
#[derive(Debug)]
pub struct DeliverySpan<'a> {
    /// The template.
    pub template: &'a TemplateName,
    /// Who the request is.
    pub identity: &'a Identity,
    /// The span of the request itself, where it told one.
    pub parent: Option<&'a Trace>,
    /// How long it was in the stream.
    pub queued: Duration,
    /// When it was delivered.
    pub began: SystemTime,
    /// When it was answered.
    pub ended: SystemTime,
    /// The answer.
    pub disposition: &'a Disposition,
}

/// A Job that ended.
#[derive(Debug)]
pub struct JobSpan<'a> {
    /// Its last state.
    pub state: &'a JobState,
    /// How it ended.
    pub outcome: &'a Outcome,
}

pub(super) fn delivery(answer: &DeliverySpan<'_>, own: &Trace) -> SpanData {
    let DeliverySpan { template, identity, parent, queued, began, ended, disposition } = answer;
    let subject = template.create_subject();
    let queued = i64::try_from(queued.as_millis()).unwrap_or(i64::MAX);
    let attributes = vec![
        KeyValue::new("messaging.system", "nats"),
        KeyValue::new("messaging.operation.type", "process"),
        KeyValue::new("messaging.operation.name", "process"),
        KeyValue::new("messaging.destination.name", subject.clone()),
        KeyValue::new("messaging.message.id", identity.id.to_string()),
        KeyValue::new("dispatcher.template", template.to_string()),
        KeyValue::new("dispatcher.request.seq", i64::try_from(identity.sequence).unwrap_or(i64::MAX)),
        KeyValue::new("dispatcher.request.queued_ms", queued),
        KeyValue::new("dispatcher.result", disposition.label()),
    ];
    let status = match disposition {
        Disposition::Created | Disposition::Exists => Status::Unset,
        Disposition::Rejected => Status::error("rejected: JOB_REJECTED holds the reason"),
        Disposition::Retrying(reason) | Disposition::Blocked(reason) => Status::error(reason.clone()),
    };
    SpanData {
        span_context: context(own, false),
        parent_span_id: parent.map_or(SpanId::INVALID, |parent| SpanId::from_bytes(parent.parent_id)),
        parent_span_is_remote: parent.is_some(),
        span_kind: SpanKind::Consumer,
        status,
        ..span(format!("process {subject}"), (*began, *ended), attributes)
    }
}

pub(super) fn run(run: &JobSpan<'_>, on_job: &Trace, now: SystemTime) -> SpanData {
    let JobSpan { state, outcome } = run;
    let ended = outcome.finish_time.as_deref().and_then(time).unwrap_or(now);
    let began = state.creation_time.or_else(|| outcome.start_time.as_deref().and_then(time)).unwrap_or(ended);
    let mut attributes = vec![
        KeyValue::new("k8s.namespace.name", state.namespace.clone()),
        KeyValue::new("k8s.job.name", state.name.to_string()),
        KeyValue::new("k8s.job.uid", state.uid.clone()),
        KeyValue::new("messaging.message.id", state.request_id.to_string()),
        KeyValue::new("dispatcher.template", state.template.to_string()),
        KeyValue::new("dispatcher.outcome.result", outcome.result.to_string()),
        KeyValue::new("dispatcher.outcome.succeeded", i64::from(outcome.succeeded)),
        KeyValue::new("dispatcher.outcome.failed", i64::from(outcome.failed)),
    ];
    attributes
        .extend(outcome.reason.clone().map(|reason| KeyValue::new("dispatcher.outcome.reason", reason)));
    SpanData {
        span_context: context(&on_job.with_parent(ids::of_run(on_job)), false),
        parent_span_id: SpanId::from_bytes(on_job.parent_id),
        parent_span_is_remote: true,
        span_kind: SpanKind::Internal,
        status: match outcome.result {
            OutcomeResult::Failed => Status::error(outcome.message.clone().unwrap_or_default()),
            _ => Status::Unset,
        },
        ..span(format!("job {}", state.template), (began, ended.max(began)), attributes)
    }
}

fn span(
    name: String,
    (start_time, end_time): (SystemTime, SystemTime),
    attributes: Vec<KeyValue>,
) -> SpanData {
    SpanData {
        span_context: SpanContext::NONE,
        parent_span_id: SpanId::INVALID,
        parent_span_is_remote: false,
        span_kind: SpanKind::Internal,
        name: name.into(),
        start_time,
        end_time,
        attributes,
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: Status::Unset,
        instrumentation_scope: InstrumentationScope::builder("dispatcher")
            .with_version(env!("CARGO_PKG_VERSION"))
            .build(),
    }
}

/// A trace in the words of OpenTelemetry.
pub(super) fn context(trace: &Trace, remote: bool) -> SpanContext {
    let flags = if trace.sampled() { TraceFlags::SAMPLED } else { TraceFlags::default() };
    let (trace_id, span_id) = (TraceId::from_bytes(trace.trace_id), SpanId::from_bytes(trace.parent_id));
    let state = trace.tracestate().and_then(|state| state.parse::<TraceState>().ok()).unwrap_or_default();
    SpanContext::new(trace_id, span_id, flags, remote, state)
}

/// A time of Kubernetes.
fn time(text: &str) -> Option<SystemTime> {
    OffsetDateTime::parse(text, &Rfc3339).ok().map(SystemTime::from)
}
