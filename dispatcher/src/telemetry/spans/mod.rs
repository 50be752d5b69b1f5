//! OpenTelemetry spans: one per delivery of a request, one per Job.
//!
//! ```text
//! the client's span (the request's `traceparent`)
//! └─ process jobs.<template>.create   from delivery to ack; its id is on the Job and its events
//!    └─ job <template>                from creation to end; its id is the containers' `TRACEPARENT`
//! ```
//! Without an OTLP endpoint no span exists, and a request's trace context is passed on unchanged.

#[cfg(not(feature = "otlp"))]
mod disabled;
#[cfg(feature = "otlp")]
mod http;
#[cfg(feature = "otlp")]
mod otlp;
#[cfg(feature = "otlp")]
mod record;

use std::time::{Duration, SystemTime};

use dispatcher_core::{
    contract::{
        event::Outcome,
        job::JobState,
        names::TemplateName,
        trace::{Trace, TraceContext},
    },
    request::{Disposition, Identity},
};

#[cfg(not(feature = "otlp"))]
pub(crate) use disabled::Spans;
#[cfg(feature = "otlp")]
pub(crate) use otlp::Spans;

/// The OTLP endpoint for all signals, and the one for spans only.
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const TRACES_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";

/// Identifies one delivery of one message.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(not(feature = "otlp"), allow(dead_code, reason = "only the exporter reads it"))]
pub(crate) struct Delivered<'a> {
    /// The stream's name and creation time.
    pub stream: &'a str,
    /// The message's sequence in the stream.
    pub sequence: u64,
    /// How often the message has been delivered, including this time.
    pub times: i64,
}

/// A handled delivery.
#[derive(Debug)]
#[cfg_attr(not(feature = "otlp"), allow(dead_code, reason = "only the exporter reads it"))]
pub(crate) struct DeliverySpan<'a> {
    /// The template.
    pub template: &'a TemplateName,
    /// The subject of the request.
    pub subject: &'a str,
    /// The request's id and sequence.
    pub identity: &'a Identity,
    /// The client's span, if the request names one.
    pub parent: Option<&'a Trace>,
    /// The time from the request's storage to its delivery.
    pub queued: Duration,
    /// The time of the delivery.
    pub began: SystemTime,
    /// The time of the answer.
    pub ended: SystemTime,
    /// How the delivery was answered.
    pub disposition: &'a Disposition,
}

/// A finished Job.
#[derive(Debug)]
#[cfg_attr(not(feature = "otlp"), allow(dead_code, reason = "only the exporter reads it"))]
pub(crate) struct JobSpan<'a> {
    /// The Job's last state.
    pub state: &'a JobState,
    /// The Job's outcome.
    pub outcome: &'a Outcome,
}

/// A non-empty environment variable.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The configured endpoint and the variable that sets it; `None` if spans are off (OpenTelemetry,
/// "Environment Variable Specification").
fn endpoint(variable: impl Fn(&str) -> Option<String>) -> Option<(&'static str, String)> {
    let off = variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
        || variable("OTEL_TRACES_EXPORTER").is_some_and(|value| value == "none");
    let mut names = [TRACES_ENDPOINT, ENDPOINT].into_iter().filter(|_| !off);
    names.find_map(|name| Some((name, variable(name)?)))
}

/// The trace context of a request whose delivery has no span.
fn unchanged(request: Option<&Trace>) -> TraceContext {
    TraceContext { trace: request.cloned(), in_containers: request.cloned() }
}

#[cfg(test)]
mod tests;
