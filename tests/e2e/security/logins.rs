//! Each method of authentication. With wrong credentials the dispatcher exits and names the
//! setting.

use async_nats::ConnectOptions;
use dispatcher_tests::{Dispatcher, Kubernetes, Namespace, Nats, or_skip};
use nkeys::KeyPair;

use super::certificates;
use super::config_folder::{ConfigFolder, options, password, passwords};
use super::jwt::{Operator, with_tls};
use crate::settings::assert_refused;

/// Wrong settings, the setting that the error must name, and the reason it must give.
type Wrong<'a> = (&'a [(&'a str, &'a str)], &'a str, &'a str);

/// Starts the dispatcher with each of the settings `right`, and expects an error with each of
/// `wrong`.
async fn assert_logins(nats: &Nats, namespace: &Namespace, right: &[&[(&str, &str)]], wrong: &[Wrong<'_>]) {
    let with = |settings: &[(&str, &str)]| {
        settings
            .iter()
            .fold(Dispatcher::builder(nats, namespace), |builder, (name, value)| builder.env(name, value))
    };
    for settings in right {
        assert_eq!(with(settings).start().await.terminate().await, Some(0), "{settings:?}");
    }
    for (settings, setting, why) in wrong {
        assert_refused(with(settings), setting, why).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn user_and_password_are_verified_at_start() {
    let config = ConfigFolder::new();
    let nats = config.by_password("accounts.conf").await;
    let namespace = or_skip!(Kubernetes::shared().await).namespace().await;
    let (right, user) = (password("dispatcher"), ("NATS_USER", "dispatcher"));
    let file = config.write("password", &format!("{right}\n"));
    let other = config.write("other", "wrong\n");
    let right: [&[_]; 2] = [&[user, ("NATS_PASSWORD", &right)], &[user, ("NATS_PASSWORD_FILE", &file)]];
    assert_logins(
        &nats,
        &namespace,
        &right,
        &[
            (&[user, ("NATS_PASSWORD", "wrong")], "NATS_USER", "authorization violation"),
            (&[user], "NATS_USER", "authorization violation"),
            (&[], "NATS_USER", "authorization violation"),
            (&[user, ("NATS_PASSWORD_FILE", &other)], "NATS_PASSWORD_FILE", "authorization violation"),
            (&[user, ("NATS_PASSWORD_FILE", "/nowhere")], "NATS_PASSWORD_FILE", "No such file"),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn token_is_verified_at_start() {
    let config = ConfigFolder::new();
    config.write("token.conf", "authorization {token: \"the token\"}\n");
    let nats = config.serve(&["token.conf"], &[], ConnectOptions::with_token("the token".into())).await;
    let namespace = or_skip!(Kubernetes::shared().await).namespace().await;
    let file = config.write("token", "the token\n");
    assert_logins(
        &nats,
        &namespace,
        &[&[("NATS_TOKEN", "the token")], &[("NATS_TOKEN_FILE", &file)]],
        &[(&[("NATS_TOKEN", "another")], "NATS_TOKEN", "authorization violation")],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nkey_is_verified_at_start() {
    let config = ConfigFolder::new();
    let users = ["DISPATCHER", "ADMINISTRATOR", "SUBMITTER", "READER", "SYSTEM"]
        .map(|user| (user, KeyPair::new_user()));
    let names = users.each_ref().map(|(user, _)| format!("{user}_NKEY"));
    let env: Vec<_> =
        names.iter().zip(&users).map(|(name, (_, key))| (name.as_str(), key.public_key())).collect();
    let seed = |at: usize| users[at].1.seed().unwrap();
    let nats = config.serve(&["accounts-nkey.conf"], &env, ConnectOptions::with_nkey(seed(1))).await;
    let namespace = or_skip!(Kubernetes::shared().await).namespace().await;
    let (right, unknown) = (seed(0), KeyPair::new_user().seed().unwrap());
    let file = config.write("seed", &format!("{right}\n"));
    let unknown = config.write("unknown-seed", &unknown);
    let invalid = config.write("invalid-seed", "no seed");
    assert_logins(
        &nats,
        &namespace,
        &[&[("NATS_NKEY", &file)]],
        &[
            (&[("NATS_NKEY", &unknown)], "NATS_NKEY", "authorization violation"),
            (&[("NATS_NKEY", &invalid)], "NATS_NKEY", "seed"),
            (&[("NATS_NKEY", &right)], "NATS_NKEY", "path"),
            (&[("NATS_NKEY", "/nowhere")], "NATS_NKEY", "No such file"),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_file_is_verified_at_start() {
    let (config, operator) = (ConfigFolder::new(), Operator::new());
    let nats = operator.serve(&config).await;
    let namespace = or_skip!(Kubernetes::shared().await).namespace().await;
    let right = operator.dispatcher.creds(&KeyPair::new_user(), Some("dispatcher"));
    let right = config.write("right.creds", &right);
    // Signed by an account of another operator.
    let foreign = Operator::new().dispatcher.creds(&KeyPair::new_user(), Some("dispatcher"));
    let foreign = config.write("foreign.creds", &foreign);
    let empty = config.write("empty.creds", "nothing\n");
    assert_logins(
        &nats,
        &namespace,
        &[&[("NATS_CREDS", &right)]],
        &[
            (&[("NATS_CREDS", &foreign)], "NATS_CREDS", "authorization violation"),
            (&[("NATS_CREDS", &empty)], "NATS_CREDS", "JWT"),
            (&[("NATS_CREDS", "/nowhere")], "NATS_CREDS", "No such file"),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_of_tls_and_mutual_tls_are_verified_at_start() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = ConfigFolder::new();
    certificates::create(&config, "ca", &["server", "client"]);
    certificates::create(&config, "other-ca", &["other-client"]);
    let namespace = or_skip!(Kubernetes::shared().await).namespace().await;
    let [ca, cert, key, other_ca, other_cert, other_key] =
        ["ca.pem", "client.pem", "client.key", "other-ca.pem", "other-client.pem", "other-client.key"]
            .map(|name| config.text(name));
    let no_pem = config.write("no.pem", "nothing\n");
    let mut env = passwords();
    env.push(("NATS_SERVER_CERT", config.text("server.pem")));
    env.push(("NATS_SERVER_KEY", config.text("server.key")));
    env.push(("NATS_CLIENT_CA", ca.clone()));
    let secret = password("dispatcher");
    let login = [("NATS_USER", "dispatcher"), ("NATS_PASSWORD", secret.as_str())];
    let and = |more: &[(&'static str, &'static str)]| -> Vec<(&str, &str)> { [&login[..], more].concat() };
    let leak = |text: &String| -> &'static str { text.clone().leak() };
    let (ca, other_ca, no_pem) =
        (("NATS_CA", leak(&ca)), ("NATS_CA", leak(&other_ca)), ("NATS_CA", leak(&no_pem)));
    let mine = [("NATS_CERT", leak(&cert)), ("NATS_KEY", leak(&key))];
    let others = [("NATS_CERT", leak(&other_cert)), ("NATS_KEY", leak(&other_key))];

    let administrator = || with_tls(&config, options("administrator"));
    let nats = config.serve(&["accounts.conf", "tls.conf"], &env, administrator()).await;
    assert_logins(
        &nats,
        &namespace,
        // Without NATS_CA, the CA certificates of the system or the image count.
        &[&and(&[ca]), &and(&[("SSL_CERT_FILE", ca.1)])],
        &[
            (&and(&[other_ca]), "NATS_CA", "invalid peer certificate"),
            (&and(&[]), "NATS_CA", ""),
            (&and(&[no_pem]), "NATS_CA", "PEM"),
            (&and(&[("NATS_CA", "/nowhere")]), "NATS_CA", "No such file"),
            (&[ca, ("NATS_USER", "dispatcher"), ("NATS_PASSWORD", "wrong")], "NATS_USER", "authorization"),
        ],
    )
    .await;
    drop(nats);

    let administrator =
        administrator().add_client_certificate(config.path("client.pem"), config.path("client.key"));
    let nats = config.serve(&["accounts.conf", "tls-mutual.conf"], &env, administrator).await;
    assert_logins(
        &nats,
        &namespace,
        &[&and(&[ca, mine[0], mine[1]])],
        &[
            (&and(&[ca]), "NATS_CERT", "connect"),
            (&and(&[ca, others[0], others[1]]), "NATS_CERT", "connect"),
            (&and(&[ca, mine[0], ("NATS_KEY", "/nowhere")]), "NATS_KEY", "No such file"),
            (&and(&[ca, mine[0], others[1]]), "NATS_CERT", "certificate"),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shipped_server_configurations_are_valid() {
    let config = ConfigFolder::new();
    certificates::create(&config, "ca", &["server"]);
    let mut env = passwords();
    env.push(("NATS_SERVER_CERT", config.text("server.pem")));
    env.push(("NATS_SERVER_KEY", config.text("server.key")));
    for file in ["server.conf", "secured.conf"] {
        let mut server = std::process::Command::new(dispatcher_tests::paths::nats_server().unwrap());
        server.args(["-t", "-c", &config.text(file)]);
        server.envs(env.iter().map(|(name, value)| (name, format!("\"{value}\""))));
        let checked = server.output().unwrap();
        assert!(checked.status.success(), "{file}: {}", String::from_utf8_lossy(&checked.stderr));
    }
}
