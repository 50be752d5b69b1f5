//! `deploy/nats-tls`: a NATS elsewhere that lets in whom it knows, by TLS; the Secret with what the dispatcher needs is made, and
//! later replaced, as the overlay says.

use dispatcher_tests::Kubernetes;
use nkeys::KeyPair;
use serde_json::json;

use super::installed::Installed;
use super::user::User;
use crate::security::config_folder::ConfigFolder;
use crate::security::jwt::{Operator, with_tls};

/// Makes or replaces the Secret from files.
async fn secret(kubernetes: &Kubernetes, config: &ConfigFolder) {
    let of = |key: &str, file: &str| format!("--from-file={key}={}", config.text(file));
    let files = [of("dispatcher.creds", "dispatcher.creds"), of("ca.crt", "ca.pem")];
    let args = ["--namespace", "dispatcher", "create", "secret", "generic", "dispatcher-nats"];
    let made =
        [&args[..], &files.each_ref().map(String::as_str), &["--dry-run=client", "-o", "yaml"]].concat();
    let manifest = config.write("secret.yaml", &kubernetes.kubectl(&made).await.unwrap());
    kubernetes.kubectl(&["apply", "-f", &manifest]).await.unwrap();
}

pub(super) async fn by_tls_with_credentials_from_a_secret(
    kubernetes: &Kubernetes,
    installed: &Installed<'_>,
) {
    // Given
    let (config, operator) = (ConfigFolder::new(), Operator::new());
    let nats = operator.serve_with_tls(&config).await;
    let gate = installed.elsewhere(&nats).await;
    let keys = [KeyPair::new_user(), KeyPair::new_user()];
    let creds = |at: usize| operator.dispatcher.creds(&keys[at], Some("dispatcher"));
    config.write("dispatcher.creds", &creds(0));
    secret(kubernetes, &config).await;
    // When
    installed.change_to("nats-tls").await;
    installed.until_rolled_out().await;
    // Then
    let user = User::new(nats.client().await);
    user.request("simple", &json!({"foo": "sealed"})).await;
    assert_eq!(user.outcome("simple", "simple-job-sealed").await["result"], "Complete");

    // When: the old credentials are worth nothing before the kubelet has brought the new ones.
    config.write("dispatcher.creds", &creds(1));
    secret(kubernetes, &config).await;
    let system = with_tls(&config, operator.system.options()).connect(&nats.url).await.unwrap();
    operator.revoke(&system, &[&keys[0]]).await;
    user.request("simple", &json!({"foo": "renewed"})).await;
    // Then
    assert_eq!(user.outcome("simple", "simple-job-renewed").await["result"], "Complete");
    for pod in installed.until_rolled_out().await {
        let status = &pod.status.as_ref().unwrap().container_statuses.as_ref().unwrap()[0];
        assert_eq!(status.restart_count, 0, "new credentials need no restart: {status:?}");
    }
    gate.close().await;
}
