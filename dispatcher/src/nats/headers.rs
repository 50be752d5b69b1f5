//! The trace context and the submitter of a NATS message: reading them from headers and writing
//! them.

use async_nats::{HeaderMap, HeaderValue};
use dispatcher_core::{
    contract::{
        headers::{JOB_SUBMITTER, JOB_SUBMITTER_SIGNATURE},
        names::{RequestId, TemplateName},
        submitter::{SignedRequest, Submitter, Submitters},
        trace::{TRACEPARENT, TRACESTATE, Trace},
    },
    request::Request,
};

/// The submitter of a stored request with this payload.
pub(crate) fn submitter_of(
    submitters: &Submitters,
    (template, id, payload): (&TemplateName, &RequestId, &[u8]),
    headers: Option<&HeaderMap>,
) -> Option<Submitter> {
    let header = |name: &str| headers?.get(name).map(HeaderValue::as_str);
    let submitter = header(JOB_SUBMITTER)?;
    let hash = Request::hash_of(template, payload)?;
    let request = SignedRequest { template, id, hash: &hash };
    submitters.read(&request, Some(submitter), header(JOB_SUBMITTER_SIGNATURE))
}

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
