//! Converts deliveries and Jobs to spans. No I/O.
//!
//! Names and attributes follow OpenTelemetry's semantic conventions for messaging and Kubernetes;
//! others have the prefix `dispatcher.`. Ids are hashes of what a span stands for, so that every
//! replica and every retry computes the same ones.

use std::time::SystemTime;

use dispatcher_core::{
    contract::{event::OutcomeResult, trace::Trace},
    request::Disposition,
};
use opentelemetry::{
    InstrumentationScope, KeyValue, SpanId, TraceFlags, TraceId,
    trace::{SpanContext, SpanKind, Status, TraceState},
};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use sha2::{Digest, Sha256};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::telemetry::spans::{Delivered, DeliverySpan, JobSpan};

/// The name of a delivery's span for the sampler, which does not know the template.
pub(super) const DELIVERY: &str = "process jobs";

/// The trace of a request that came without one; the same for each delivery.
pub(super) fn trace_id(delivered: &Delivered<'_>) -> [u8; 16] {
    hash_prefix(&["trace", delivered.stream, &delivered.sequence.to_string()])
}

/// The span of a delivery.
pub(super) fn delivery_span_id(delivered: &Delivered<'_>, trace_id: [u8; 16]) -> [u8; 8] {
    let Delivered { stream, sequence, times } = delivered;
    let trace_id = u128::from_be_bytes(trace_id).to_string();
    hash_prefix(&["delivery", &trace_id, stream, &sequence.to_string(), &times.to_string()])
}

/// The span of a Job; its parent is the trace context on the Job.
pub(super) fn job_span_id(on_job: &Trace) -> [u8; 8] {
    hash_prefix(&["run", &on_job.traceparent()])
}

/// The first bytes of the SHA-256 of some words.
fn hash_prefix<const N: usize>(words: &[&str]) -> [u8; N] {
    let hash = Sha256::digest(words.join("\n"));
    let mut prefix = [0; N];
    prefix.iter_mut().zip(hash).for_each(|(byte, of_hash)| *byte = of_hash);
    prefix
}

pub(super) fn delivery(delivery: &DeliverySpan<'_>, own: &Trace) -> SpanData {
    let DeliverySpan { template, subject, identity, parent, queued, began, ended, disposition } = delivery;
    let queued = i64::try_from(queued.as_millis()).unwrap_or(i64::MAX);
    let attributes = vec![
        KeyValue::new("messaging.system", "nats"),
        KeyValue::new("messaging.operation.type", "process"),
        KeyValue::new("messaging.operation.name", "process"),
        KeyValue::new("messaging.destination.name", (*subject).to_owned()),
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
        span_context: span_context(own, false),
        parent_span_id: parent.map_or(SpanId::INVALID, |parent| SpanId::from_bytes(parent.parent_id)),
        parent_span_is_remote: parent.is_some(),
        span_kind: SpanKind::Consumer,
        status,
        ..span(format!("process {subject}"), (*began, *ended), attributes)
    }
}

pub(super) fn job(job: &JobSpan<'_>, on_job: &Trace, now: SystemTime) -> SpanData {
    let JobSpan { state, outcome } = job;
    let ended = outcome.finish_time.as_deref().and_then(parse_time).unwrap_or(now);
    let began =
        state.creation_time.or_else(|| outcome.start_time.as_deref().and_then(parse_time)).unwrap_or(ended);
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
        span_context: span_context(&on_job.with_parent(job_span_id(on_job)), false),
        parent_span_id: SpanId::from_bytes(on_job.parent_id),
        parent_span_is_remote: true,
        span_kind: SpanKind::Internal,
        status: match outcome.result {
            OutcomeResult::Failed => Status::error(outcome.message.clone().unwrap_or_default()),
            _ => Status::Unset,
        },
        // Kubernetes truncates times to whole seconds: the end can seem earlier than the creation.
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

/// Converts a trace context to OpenTelemetry's type.
pub(super) fn span_context(trace: &Trace, remote: bool) -> SpanContext {
    let flags = if trace.sampled() { TraceFlags::SAMPLED } else { TraceFlags::default() };
    let (trace_id, span_id) = (TraceId::from_bytes(trace.trace_id), SpanId::from_bytes(trace.parent_id));
    let state = trace.tracestate().and_then(|state| state.parse::<TraceState>().ok()).unwrap_or_default();
    SpanContext::new(trace_id, span_id, flags, remote, state)
}

/// Parses a timestamp of Kubernetes.
fn parse_time(text: &str) -> Option<SystemTime> {
    OffsetDateTime::parse(text, &Rfc3339).ok().map(SystemTime::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivered(sequence: u64, times: i64) -> Delivered<'static> {
        Delivered { stream: "JOBS 2026", sequence, times }
    }

    #[test]
    fn deliveries_of_one_request_are_different_spans_of_one_trace() {
        let (first, second) = (delivered(7, 1), delivered(7, 2));
        assert_eq!(trace_id(&first), trace_id(&second));
        assert_ne!(delivery_span_id(&first, [1; 16]), delivery_span_id(&second, [1; 16]));
        let other_process = delivery_span_id(&delivered(7, 1), [1; 16]);
        assert_eq!(delivery_span_id(&first, [1; 16]), other_process);
        assert_ne!(trace_id(&first), trace_id(&delivered(8, 1)));
    }

    #[test]
    fn job_span_id_depends_on_the_trace_context_of_the_job() {
        let trace = Trace::new([1; 16], [2; 8], true).unwrap();
        assert_eq!(job_span_id(&trace), job_span_id(&trace));
        assert_ne!(job_span_id(&trace), trace.parent_id);
        assert_ne!(job_span_id(&trace), job_span_id(&trace.with_parent([3; 8])));
    }
}
