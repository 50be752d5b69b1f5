//! Clients, and whether an API server is ready.

use std::path::Path;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// A client by a kubeconfig file; it belongs to the calling runtime.
pub fn client(kubeconfig: &Path) -> Result<Client, String> {
    Client::try_from(config(kubeconfig)?).map_err(|error| format!("{}: {error}", kubeconfig.display()))
}

/// How a client is set by a kubeconfig file.
pub fn config(kubeconfig: &Path) -> Result<Config, String> {
    // Fails when a provider is there already, which serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", kubeconfig.display());
    let kubeconfig = Kubeconfig::read_from(kubeconfig).map_err(|error| failed(&error))?;
    let options = KubeConfigOptions::default();
    let config = futures::executor::block_on(Config::from_custom_kubeconfig(kubeconfig, &options));
    config.map_err(|error| failed(&error))
}

/// Whether the API server says that it is ready; if not, what it says.
pub async fn look(kubeconfig: &Path) -> Result<(), String> {
    let request = http::Request::get("/readyz").body(vec![]).map_err(|error| error.to_string())?;
    match client(kubeconfig)?.request_text(request).await {
        Ok(text) if text == "ok" => Ok(()),
        Ok(text) => Err(text),
        Err(error) => Err(format!("{error:?}")),
    }
}
