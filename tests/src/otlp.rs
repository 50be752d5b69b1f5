//! A receiver of OTLP over HTTP that keeps the received spans.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::{
    Router, body::Bytes, extract::State, http::StatusCode, http::header::CONTENT_TYPE, routing::post,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::{Span, status::StatusCode as Code};
use prost::Message;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A received span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// Its name.
    pub name: String,
    /// The trace id, in hex.
    pub trace_id: String,
    /// The span id, in hex.
    pub span_id: String,
    /// The span id of its parent, in hex; empty if it has none.
    pub parent_id: String,
    /// Its attributes and those of its resource.
    pub attributes: BTreeMap<String, String>,
    /// The message of its status, if that is an error.
    pub error: Option<String>,
    /// Its duration in nanoseconds.
    pub nanos: u64,
}

/// A running receiver; it ends when this is dropped.
pub struct Receiver {
    spans: Arc<Mutex<Vec<Received>>>,
    address: String,
    task: JoinHandle<()>,
}

impl Receiver {
    /// Listens on a free port.
    pub async fn start() -> Self {
        let spans = Arc::<Mutex<Vec<Received>>>::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("the listener has an address").to_string();
        let router = Router::new().route("/v1/traces", post(take)).with_state(spans.clone());
        let task =
            tokio::spawn(async move { axum::serve(listener, router).await.expect("the receiver runs") });
        Self { spans, address, task }
    }

    /// The value for `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All spans so far.
    pub fn spans(&self) -> Vec<Received> {
        self.spans.lock().expect("no thread panics with this lock").clone()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Answer = Result<([(axum::http::HeaderName, &'static str); 1], Vec<u8>), (StatusCode, String)>;

async fn take(State(spans): State<Arc<Mutex<Vec<Received>>>>, body: Bytes) -> Answer {
    let request = ExportTraceServiceRequest::decode(body)
        .map_err(|error| (StatusCode::BAD_REQUEST, format!("not an OTLP request: {error}")))?;
    let mut all = spans.lock().expect("no thread panics with this lock");
    for of_sender in request.resource_spans {
        let sender = of_sender.resource.map(|resource| resource.attributes).unwrap_or_default();
        let spans = of_sender.scope_spans.into_iter().flat_map(|scope| scope.spans);
        all.extend(spans.map(|span| received(span, &sender)));
    }
    Ok(([(CONTENT_TYPE, "application/x-protobuf")], ExportTraceServiceResponse::default().encode_to_vec()))
}

fn received(span: Span, sender: &[KeyValue]) -> Received {
    let error = span.status.filter(|status| status.code == Code::Error as i32).map(|status| status.message);
    Received {
        name: span.name,
        trace_id: hex(&span.trace_id),
        span_id: hex(&span.span_id),
        parent_id: hex(&span.parent_span_id),
        attributes: span.attributes.iter().chain(sender).map(attribute).collect(),
        error,
        nanos: span.end_time_unix_nano.saturating_sub(span.start_time_unix_nano),
    }
}

fn attribute(pair: &KeyValue) -> (String, String) {
    let value = match pair.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    };
    (pair.key.clone(), value)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
