//! The trace context of a NATS message: reading it from headers and writing it to them.

use async_nats::{HeaderMap, HeaderValue};
use dispatcher_core::contract::trace::{TRACEPARENT, TRACESTATE, Trace};

/// The trace in a message's headers.
pub(crate) fn trace_of(headers: Option<&HeaderMap>) -> Option<Trace> {
    let header = |name: &str| headers?.get(name).map(HeaderValue::as_str);
    Trace::from_headers(header(TRACEPARENT), header(TRACESTATE))
}

/// Writes the trace to a message's headers.
pub(crate) fn put_trace(headers: &mut HeaderMap, trace: Option<&Trace>) {
    let Some(trace) = trace else { return };
    headers.insert(TRACEPARENT, trace.traceparent());
    if let Some(state) = trace.tracestate() {
        headers.insert(TRACESTATE, state);
    }
}
