//! HTTP for the SDK, whose exporter runs on a thread of its own: each call is made on the service's runtime.

use std::time::Duration;

use async_trait::async_trait;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response, hyper::HyperClient};
use tokio::runtime::Handle;

use crate::cli::StartError;

/// The settings of the SDK for how long a call may take, in milliseconds, and its default.
const TIMEOUTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"];
const TIMEOUT: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug)]
pub(super) struct Client {
    runtime: Handle,
    client: HyperClient<HttpsConnector<HttpConnector>>,
}

impl Client {
    /// A client for that endpoint; certificates of `https` are those of the system (`SSL_CERT_FILE`).
    ///
    /// # Errors
    /// Where the system has no certificates.
    pub(super) fn new(runtime: Handle, endpoint: &str, timeout: Duration) -> Result<Self, String> {
        let builder = HttpsConnectorBuilder::new();
        let builder = match endpoint.starts_with("https:") {
            true => {
                builder.with_native_roots().map_err(|error| format!("no certificates for https: {error}"))?
            }
            // Nothing is verified, so none are needed: a container may have none.
            false => builder.with_tls_config(without_roots()?),
        };
        let connector = builder.https_or_http().enable_http1().build();
        Ok(Self { runtime, client: HyperClient::new(connector, timeout, None) })
    }
}

fn without_roots() -> Result<rustls::ClientConfig, String> {
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|error| error.to_string())?;
    Ok(config.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth())
}

/// How long a call may take.
///
/// # Errors
/// [`StartError`] names the variable that is no number.
pub(super) fn timeout(variable: impl Fn(&str) -> Option<String>) -> Result<Duration, StartError> {
    let set = TIMEOUTS.into_iter().find_map(|name| Some((name, variable(name)?)));
    let Some((name, text)) = set else { return Ok(TIMEOUT) };
    let error = || StartError::new(name, format!("found `{text}`, allowed is a number of milliseconds"));
    text.parse().map(Duration::from_millis).map_err(|_| error())
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        self.runtime.spawn(async move { client.send_bytes(request).await }).await?
    }
}
