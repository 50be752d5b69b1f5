//! Spans of OpenTelemetry, by OTLP: one for each delivery of a request, one for each Job from its creation to its end.
//!
//! ```text
//! the request's own span (its `traceparent`)
//! └─ process jobs.<template>.create   intake: from the delivery to its answer; stands on the Job as `natsjobs.dev/traceparent`
//!    └─ job <template>                report: from the Job's creation to its end; the containers' `TRACEPARENT`
//! ```
//!
//! Off unless an endpoint is set: then a request's trace is passed on as it came. What cannot be sent in time is dropped by the
//! SDK's bounded queue; no request ever waits for it.

mod http;
mod ids;
mod record;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

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

use crate::cli::StartError;
pub use crate::telemetry::spans::{
    ids::Delivered,
    record::{DeliverySpan, JobSpan},
};
use dispatcher_core::contract::trace::Trace;

/// Where spans go: for all signals, and for spans alone.
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const TRACES_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
/// How they go there.
const PROTOCOL: &str = "OTEL_EXPORTER_OTLP_PROTOCOL";
const TRACES_PROTOCOL: &str = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL";

/// Where spans are told. Clones are the same one.
#[derive(Clone, Default)]
pub struct Spans(Option<Arc<Sender>>);

struct Sender {
    processor: BatchSpanProcessor,
    sampler: Box<dyn ShouldSample>,
}

impl Spans {
    /// As the `OTEL_*` variables say (OpenTelemetry, "Environment Variable Specification"): off without an endpoint, with
    /// `OTEL_SDK_DISABLED=true`, and with `OTEL_TRACES_EXPORTER=none`. Call within a tokio runtime.
    ///
    /// # Errors
    /// [`StartError`] names the variable that cannot be used.
    pub fn from_env() -> Result<Self, StartError> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let Some((name, endpoint)) = endpoint(variable)? else { return Ok(Self::default()) };
        let client = http::Client::new(Handle::current(), &endpoint, http::timeout(variable)?)
            .map_err(|error| StartError::new(name, error))?;
        let exporter =
            SpanExporter::builder().with_http().with_protocol(Protocol::HttpBinary).with_http_client(client);
        let exporter = exporter
            .build()
            .map_err(|error| StartError::new(name, format!("found `{endpoint}`: {error}")))?;
        let mut processor = BatchSpanProcessor::builder(exporter).build();
        processor.set_resource(&resource(variable));
        tracing::info!(endpoint, "spans are sent");
        // The SDK reads its sampler's variables into this.
        let sampler = Config::default().sampler;
        Ok(Self(Some(Arc::new(Sender { processor, sampler }))))
    }

    /// What a request is passed on with: its own trace, or, where this delivery has a span, that span's.
    pub fn context(
        &self,
        request: Option<&Trace>,
        delivered: &Delivered<'_>,
    ) -> dispatcher_core::contract::trace::TraceContext {
        let unchanged = || dispatcher_core::contract::trace::TraceContext {
            trace: request.cloned(),
            in_containers: request.cloned(),
        };
        self.span_of(request, delivered).unwrap_or_else(unchanged)
    }

    fn span_of(
        &self,
        request: Option<&Trace>,
        delivered: &Delivered<'_>,
    ) -> Option<dispatcher_core::contract::trace::TraceContext> {
        let sender = self.0.as_ref()?;
        let trace_id = request.map_or_else(|| delivered.trace_id(), |trace| trace.trace_id);
        if !sender.samples(request, trace_id) {
            return None;
        }
        let trace = Trace::new(trace_id, delivered.span_id(&trace_id), true)?;
        let trace = trace.with_state(request.and_then(Trace::state).cloned());
        Some(dispatcher_core::contract::trace::TraceContext {
            in_containers: Some(trace.with_parent(ids::of_run(&trace))),
            trace: Some(trace),
        })
    }

    /// How a delivery was answered, with what it was passed on with.
    pub fn delivery(
        &self,
        answer: &DeliverySpan<'_>,
        carried: &dispatcher_core::contract::trace::TraceContext,
    ) {
        let own = carried.trace.as_ref().filter(|_| carried.trace != carried.in_containers);
        if let (Some(sender), Some(trace)) = (&self.0, own) {
            sender.processor.on_end(record::delivery(answer, trace));
        }
    }

    /// How a Job ended.
    pub fn ended(&self, run: &JobSpan<'_>) {
        if let (Some(sender), Some(trace)) =
            (&self.0, run.state.trace.as_ref().filter(|trace| trace.sampled()))
        {
            sender.processor.on_end(record::run(run, trace, SystemTime::now()));
        }
    }

    /// Sends what was told, for at most so long.
    pub async fn stop(self, within: Duration) {
        let Some(sender) = self.0 else { return };
        // The processor has a thread of its own, which is waited for.
        let sent = spawn_blocking(move || sender.processor.shutdown_with_timeout(within)).await;
        if let Ok(Err(error)) = sent {
            tracing::warn!(%error, "the last spans were not sent");
        }
    }
}

impl Sender {
    fn samples(&self, request: Option<&Trace>, trace_id: [u8; 16]) -> bool {
        let parent =
            request.map(|trace| Context::new().with_remote_span_context(record::context(trace, true)));
        let (id, kind) = (TraceId::from_bytes(trace_id), SpanKind::Consumer);
        let result = self.sampler.should_sample(parent.as_ref(), id, record::DELIVERY, &kind, &[], &[]);
        result.decision == SamplingDecision::RecordAndSample
    }
}

/// The endpoint and the variable that names it; `None` where no span is to be sent.
fn endpoint(variable: impl Fn(&str) -> Option<String>) -> Result<Option<(&'static str, String)>, StartError> {
    let off = variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
        || variable("OTEL_TRACES_EXPORTER").is_some_and(|value| value == "none");
    let found = [TRACES_ENDPOINT, ENDPOINT].into_iter().find_map(|name| Some((name, variable(name)?)));
    let Some(found) = found.filter(|_| !off) else { return Ok(None) };
    for name in [TRACES_PROTOCOL, PROTOCOL] {
        match variable(name) {
            Some(protocol) if protocol != "http/protobuf" => {
                let message = format!(
                    "found `{protocol}`, allowed is `http/protobuf`, which receivers offer on port 4318"
                );
                return Err(StartError::new(name, message));
            }
            _ => {}
        }
    }
    Ok(Some(found))
}

/// Who tells: by the `OTEL_*` variables, and `dispatcher` where they give no name.
fn resource(variable: impl Fn(&str) -> Option<String>) -> Resource {
    let named = variable("OTEL_SERVICE_NAME").is_some()
        || variable("OTEL_RESOURCE_ATTRIBUTES").is_some_and(|all| all.contains("service.name="));
    let resource = Resource::builder();
    if named { resource.build() } else { resource.with_service_name("dispatcher").build() }
}

#[cfg(test)]
mod tests;
