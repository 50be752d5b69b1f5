//! The trace context of a NATS message: reading it from headers and writing it to them.

use async_nats::HeaderMap;
use dispatcher_core::contract::trace::{TRACEPARENT, TRACESTATE, Trace};

/// The trace that a message belongs to, by its headers.
pub fn trace_of(headers: Option<&HeaderMap>) -> Option<Trace> {
    let header = |name: &str| headers?.get(name).map(|value| value.as_str());
    Trace::from_headers(header(TRACEPARENT), header(TRACESTATE))
}

/// Says on a message which trace it belongs to.
pub fn put_trace(headers: &mut HeaderMap, trace: Option<&Trace>) {
    let Some(trace) = trace else { return };
    headers.insert(TRACEPARENT, trace.traceparent());
    if let Some(state) = trace.tracestate() {
        headers.insert(TRACESTATE, state);
    }
}
