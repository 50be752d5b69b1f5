//! `deploy/nats-tls`: a NATS outside the cluster that requires TLS and credentials. The Secret of
//! the dispatcher is created and later rotated.

use dispatcher_tests::Kubernetes;
use nkeys::KeyPair;
use serde_json::json;

use super::installed::Installed;
use super::user::User;
use crate::security::config_folder::ConfigFolder;
use crate::security::jwt::{Operator, with_tls};

/// Creates or replaces the Secret from files.
async fn apply_secret(kubernetes: &Kubernetes, config: &ConfigFolder) {
    let from_file = |key: &str, file: &str| format!("--from-file={key}={}", config.text(file));
    let files = [from_file("dispatcher.creds", "dispatcher.creds"), from_file("ca.crt", "ca.pem")];
    let args = ["--namespace", "dispatcher", "create", "secret", "generic", "dispatcher-nats"];
    let args =
        [&args[..], &files.each_ref().map(String::as_str), &["--dry-run=client", "-o", "yaml"]].concat();
    let manifest = config.write("secret.yaml", &kubernetes.kubectl(&args).await.unwrap());
    kubernetes.kubectl(&["apply", "-f", &manifest]).await.unwrap();
}

pub(super) async fn assert_tls_and_credential_rotation(kubernetes: &Kubernetes, installed: &Installed<'_>) {
    let (config, operator) = (ConfigFolder::new(), Operator::new());
    let nats = operator.serve_with_tls(&config).await;
    let forwarder = installed.expose(&nats).await;
    let keys = [KeyPair::new_user(), KeyPair::new_user()];
    let creds = |at: usize| operator.dispatcher.creds(&keys[at], Some("dispatcher"));
    config.write("dispatcher.creds", &creds(0));
    apply_secret(kubernetes, &config).await;
    installed.change_to("nats-tls").await;
    installed.until_rolled_out().await;
    let user = User::new(nats.client().await);
    user.request("simple", &json!({"foo": "first"})).await;
    assert_eq!(user.outcome("simple", "simple-job-first").await["result"], "Complete");

    // The old credentials are revoked before the kubelet has updated the Secret.
    config.write("dispatcher.creds", &creds(1));
    apply_secret(kubernetes, &config).await;
    let system = with_tls(&config, operator.system.options()).connect(&nats.url).await.unwrap();
    operator.revoke(&system, &[&keys[0]]).await;
    user.request("simple", &json!({"foo": "second"})).await;
    assert_eq!(user.outcome("simple", "simple-job-second").await["result"], "Complete");
    for pod in installed.until_rolled_out().await {
        let status = &pod.status.as_ref().unwrap().container_statuses.as_ref().unwrap()[0];
        assert_eq!(status.restart_count, 0, "the rotation restarted a pod: {status:?}");
    }
    forwarder.close().await;
}
