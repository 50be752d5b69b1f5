//! Exports spans by OTLP over HTTP.
//!
//! The SDK's bounded queue drops spans that cannot be sent in time; no request waits for it.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use dispatcher_core::contract::trace::{Trace, TraceContext};
use opentelemetry::{
    Context, TraceId,
    trace::{SpanKind, TraceContextExt},
};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{
    Resource,
    trace::{BatchSpanProcessor, Config, SamplingDecision, ShouldSample, SpanProcessor},
};
use tokio::{runtime::Handle, task::spawn_blocking};

use crate::{
    cli::StartError,
    telemetry::spans::{Delivered, DeliverySpan, JobSpan, endpoint, http, record, unchanged, variable},
};

/// The OTLP protocol for spans only, and the one for all signals.
const PROTOCOLS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];
/// The supported protocol.
const PROTOCOL: &str = "http/protobuf";

/// Records and exports spans, if an endpoint is configured; clones share the exporter.
#[derive(Clone, Default)]
pub(crate) struct Spans(Option<Arc<Exporter>>);

struct Exporter {
    processor: BatchSpanProcessor,
    sampler: Box<dyn ShouldSample>,
}

impl Spans {
    /// Reads the configuration from the `OTEL_*` variables. Call it within a tokio runtime.
    ///
    /// # Errors
    /// [`StartError`] names the variable that cannot be used.
    pub(crate) fn from_env() -> Result<Self, StartError> {
        let Some((name, endpoint)) = endpoint(variable) else { return Ok(Self::default()) };
        check_protocol(variable)?;
        let client = http::Client::new(Handle::current(), &endpoint, http::timeout(variable)?)
            .map_err(|error| StartError::new(name, error))?;
        let exporter =
            SpanExporter::builder().with_http().with_protocol(Protocol::HttpBinary).with_http_client(client);
        let exporter = exporter
            .build()
            .map_err(|error| StartError::new(name, format!("invalid endpoint `{endpoint}`: {error}")))?;
        let mut processor = BatchSpanProcessor::builder(exporter).build();
        processor.set_resource(&resource(variable));
        tracing::info!(endpoint, "exporting spans");
        Ok(Self::new(processor))
    }

    pub(super) fn new(processor: BatchSpanProcessor) -> Self {
        // The SDK's default configuration reads the sampler's variables.
        let sampler = Config::default().sampler;
        Self(Some(Arc::new(Exporter { processor, sampler })))
    }

    /// The trace context that the dispatcher passes on: the delivery's span if it is sampled,
    /// otherwise the request's trace context unchanged.
    #[must_use]
    pub(crate) fn context(&self, request: Option<&Trace>, delivered: &Delivered<'_>) -> TraceContext {
        self.sampled_context(request, delivered).unwrap_or_else(|| unchanged(request))
    }

    fn sampled_context(&self, request: Option<&Trace>, delivered: &Delivered<'_>) -> Option<TraceContext> {
        let exporter = self.0.as_ref()?;
        let trace_id = request.map_or_else(|| record::trace_id(delivered), |trace| trace.trace_id);
        if !exporter.samples(request, trace_id) {
            return None;
        }
        let trace = Trace::new(trace_id, record::delivery_span_id(delivered, trace_id), true)?;
        let trace = trace.with_state(request.and_then(Trace::state).cloned());
        let in_containers = Some(trace.with_parent(record::job_span_id(&trace)));
        Some(TraceContext { trace: Some(trace), in_containers })
    }

    /// Records a delivery that was passed on with `context`.
    pub(crate) fn delivery(&self, delivery: &DeliverySpan<'_>, context: &TraceContext) {
        // Both are equal if the delivery was not sampled.
        let own = context.trace.as_ref().filter(|_| context.trace != context.in_containers);
        if let (Some(exporter), Some(trace)) = (&self.0, own) {
            exporter.processor.on_end(record::delivery(delivery, trace));
        }
    }

    /// Records a finished Job.
    pub(crate) fn ended(&self, job: &JobSpan<'_>) {
        let trace = job.state.trace.as_ref().filter(|trace| trace.sampled());
        if let (Some(exporter), Some(trace)) = (&self.0, trace) {
            exporter.processor.on_end(record::job(job, trace, SystemTime::now()));
        }
    }

    /// Sends the recorded spans, for at most `within`.
    pub(crate) async fn stop(self, within: Duration) {
        let Some(exporter) = self.0 else { return };
        // Blocks until the processor's own thread has finished.
        let sent = spawn_blocking(move || exporter.processor.shutdown_with_timeout(within)).await;
        if let Ok(Err(error)) = sent {
            tracing::warn!(%error, "cannot send the last spans");
        }
    }
}

impl Exporter {
    fn samples(&self, request: Option<&Trace>, trace_id: [u8; 16]) -> bool {
        let parent =
            request.map(|trace| Context::new().with_remote_span_context(record::span_context(trace, true)));
        let (id, kind) = (TraceId::from_bytes(trace_id), SpanKind::Consumer);
        let result = self.sampler.should_sample(parent.as_ref(), id, record::DELIVERY, &kind, &[], &[]);
        result.decision == SamplingDecision::RecordAndSample
    }
}

pub(super) fn check_protocol(variable: impl Fn(&str) -> Option<String>) -> Result<(), StartError> {
    for name in PROTOCOLS {
        if let Some(found) = variable(name).filter(|found| found != PROTOCOL) {
            let message = format!(
                "unsupported protocol `{found}` (allowed: {PROTOCOL}, by default on port 4318 of a receiver)"
            );
            return Err(StartError::new(name, message));
        }
    }
    Ok(())
}

/// The resource of the `OTEL_*` variables, with the service name `dispatcher` by default.
fn resource(variable: impl Fn(&str) -> Option<String>) -> Resource {
    let named = variable("OTEL_SERVICE_NAME").is_some()
        || variable("OTEL_RESOURCE_ATTRIBUTES").is_some_and(|all| all.contains("service.name="));
    let resource = Resource::builder();
    if named { resource.build() } else { resource.with_service_name("dispatcher").build() }
}
