//! Clients from kubeconfig files, and the readiness of an API server.

use std::path::Path;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// A client for the calling runtime.
pub fn client(kubeconfig: &Path) -> Result<Client, String> {
    Client::try_from(config(kubeconfig)?).map_err(|error| format!("{}: {error}", kubeconfig.display()))
}

/// The client configuration of a kubeconfig file.
pub fn config(kubeconfig: &Path) -> Result<Config, String> {
    // Fails if a provider is installed already, which works as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", kubeconfig.display());
    let kubeconfig = Kubeconfig::read_from(kubeconfig).map_err(|error| failed(&error))?;
    let options = KubeConfigOptions::default();
    let config = futures::executor::block_on(Config::from_custom_kubeconfig(kubeconfig, &options));
    config.map_err(|error| failed(&error))
}

/// Checks that the API server is ready; the error is its answer.
pub async fn check(kubeconfig: &Path) -> Result<(), String> {
    let request = http::Request::get("/readyz").body(vec![]).map_err(|error| error.to_string())?;
    match client(kubeconfig)?.request_text(request).await {
        Ok(text) if text == "ok" => Ok(()),
        Ok(text) => Err(text),
        Err(error) => Err(format!("{error:?}")),
    }
}
