//! Clients, and waiting for an API server.

use std::path::Path;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use crate::wait::try_until;

/// A client by a kubeconfig file; it belongs to the calling runtime.
pub fn client(kubeconfig: &Path) -> Result<Client, String> {
    // Fails when a provider is there already, which serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", kubeconfig.display());
    let kubeconfig = Kubeconfig::read_from(kubeconfig).map_err(|error| failed(&error))?;
    let options = KubeConfigOptions::default();
    let config = futures::executor::block_on(Config::from_custom_kubeconfig(kubeconfig, &options));
    Client::try_from(config.map_err(|error| failed(&error))?).map_err(|error| failed(&error))
}

/// Waits until the API server answers that it is ready.
pub async fn api_server(kubeconfig: &Path, deadline: Duration) -> Result<(), String> {
    try_until("the API server's /readyz to say ok", deadline, || async {
        let client = client(kubeconfig)?;
        let request = http::Request::get("/readyz").body(vec![]).map_err(|error| error.to_string())?;
        match client.request_text(request).await {
            Ok(text) if text == "ok" => Ok(()),
            Ok(text) => Err(text),
            Err(error) => Err(format!("{error:?}")),
        }
    })
    .await
}
