//! The HTTP client of the exporter.
//!
//! The SDK exports from a separate thread without a runtime; each call runs on the service's.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response, hyper::HyperClient};
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use tokio::runtime::Handle;

use crate::cli::StartError;

/// The variables for the deadline of one call in milliseconds, and the default deadline.
const TIMEOUTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"];
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// Sends requests on the runtime.
#[derive(Debug)]
pub(super) struct Client {
    runtime: Handle,
    client: HyperClient<HttpsConnector<HttpConnector>>,
}

impl Client {
    /// A client for that endpoint. `https` uses the system's certificates (`SSL_CERT_FILE`).
    ///
    /// # Errors
    /// The system has no certificates.
    pub(super) fn new(runtime: Handle, endpoint: &str, timeout: Duration) -> Result<Self, String> {
        let builder = HttpsConnectorBuilder::new();
        let builder = if endpoint.starts_with("https:") {
            builder.with_native_roots().map_err(|error| format!("no certificates for https: {error}"))?
        } else {
            // A container may have no certificates, and plain HTTP needs none.
            builder.with_tls_config(config_without_roots()?)
        };
        let connector = builder.https_or_http().enable_http1().build();
        Ok(Self { runtime, client: HyperClient::new(connector, timeout, None) })
    }
}

fn config_without_roots() -> Result<ClientConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|error| error.to_string())?;
    Ok(config.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
}

/// The deadline of one call.
///
/// # Errors
/// [`StartError`] names the variable that is not a number.
pub(super) fn timeout(variable: impl Fn(&str) -> Option<String>) -> Result<Duration, StartError> {
    let set = TIMEOUTS.into_iter().find_map(|name| Some((name, variable(name)?)));
    let Some((name, text)) = set else { return Ok(DEFAULT_TIMEOUT) };
    let milliseconds = text.parse().map(Duration::from_millis);
    milliseconds.map_err(|_| {
        StartError::new(name, format!("invalid timeout `{text}` (allowed: a number of milliseconds)"))
    })
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        self.runtime.spawn(async move { client.send_bytes(request).await }).await?
    }
}
