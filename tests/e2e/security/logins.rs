//! Each way of logging in, the right one and the wrong ones: those end the program with the setting named.

use async_nats::ConnectOptions;
use dispatcher_tests::{Dispatcher, Kubernetes, Namespace, Nats, or_skip};
use nkeys::KeyPair;

use super::certificates;
use super::jwt::{Operator, by_tls};
use super::place::{Place, options, password, passwords};
use crate::settings::refuses;

/// Settings, the one that is named when they are wrong, and why.
type Wrong<'a> = (&'a [(&'a str, &'a str)], &'a str, &'a str);

/// Starts with the settings `right`; refuses to with each of `wrong`, naming the setting, with the reason.
async fn holds(nats: &Nats, namespace: &Namespace, right: &[&[(&str, &str)]], wrong: &[Wrong<'_>]) {
    let with = |settings: &[(&str, &str)]| {
        settings
            .iter()
            .fold(Dispatcher::builder(nats, namespace), |builder, (name, value)| builder.env(name, value))
    };
    for settings in right {
        assert_eq!(with(settings).start().await.terminate().await, Some(0), "{settings:?}");
    }
    for (settings, setting, why) in wrong {
        refuses(with(settings), setting, why).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn by_user_and_password() {
    let place = Place::new();
    let nats = place.by_password("accounts.conf").await;
    let namespace = or_skip!(Kubernetes::shared().await).namespace().await;
    let (right, user) = (password("dispatcher"), ("NATS_USER", "dispatcher"));
    let file = place.write("password", &format!("{right}\n"));
    let other = place.write("other", "wrong\n");
    let right: [&[_]; 2] = [&[user, ("NATS_PASSWORD", &right)], &[user, ("NATS_PASSWORD_FILE", &file)]];
    holds(
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
async fn by_token() {
    let place = Place::new();
    place.write("token.conf", "authorization {token: \"the token\"}\n");
    let nats = place.serve(&["token.conf"], &[], ConnectOptions::with_token("the token".into())).await;
    let namespace = or_skip!(Kubernetes::shared().await).namespace().await;
    let file = place.write("token", "the token\n");
    holds(
        &nats,
        &namespace,
        &[&[("NATS_TOKEN", "the token")], &[("NATS_TOKEN_FILE", &file)]],
        &[(&[("NATS_TOKEN", "another")], "NATS_TOKEN", "authorization violation")],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn by_nkey() {
    let place = Place::new();
    let users = ["DISPATCHER", "ADMINISTRATOR", "SUBMITTER", "READER", "SYSTEM"]
        .map(|user| (user, KeyPair::new_user()));
    let names = users.each_ref().map(|(user, _)| format!("{user}_NKEY"));
    let env: Vec<_> =
        names.iter().zip(&users).map(|(name, (_, key))| (name.as_str(), key.public_key())).collect();
    let seed = |at: usize| users[at].1.seed().unwrap();
    let nats = place.serve(&["accounts-nkey.conf"], &env, ConnectOptions::with_nkey(seed(1))).await;
    let namespace = or_skip!(Kubernetes::shared().await).namespace().await;
    let (right, unknown) = (seed(0), KeyPair::new_user().seed().unwrap());
    let file = place.write("seed", &format!("{right}\n"));
    let unknown = place.write("unknown-seed", &unknown);
    let invalid = place.write("invalid-seed", "no seed");
    holds(
        &nats,
        &namespace,
        &[&[("NATS_NKEY", &file)]],
        &[
            (&[("NATS_NKEY", &unknown)], "NATS_NKEY", "authorization violation"),
            (&[("NATS_NKEY", &invalid)], "NATS_NKEY", "expected the seed of an nkey"),
            (&[("NATS_NKEY", &right)], "NATS_NKEY", "expected the path of a file"),
            (&[("NATS_NKEY", "/nowhere")], "NATS_NKEY", "No such file"),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn by_credentials_file() {
    let (place, operator) = (Place::new(), Operator::new());
    let nats = operator.serve(&place).await;
    let namespace = or_skip!(Kubernetes::shared().await).namespace().await;
    let right = operator.dispatcher.creds(&KeyPair::new_user(), Some("dispatcher"));
    let right = place.write("right.creds", &right);
    // Signed by an account that this operator does not know.
    let foreign = Operator::new().dispatcher.creds(&KeyPair::new_user(), Some("dispatcher"));
    let foreign = place.write("foreign.creds", &foreign);
    let empty = place.write("empty.creds", "nothing\n");
    holds(
        &nats,
        &namespace,
        &[&[("NATS_CREDS", &right)]],
        &[
            (&[("NATS_CREDS", &foreign)], "NATS_CREDS", "authorization violation"),
            (&[("NATS_CREDS", &empty)], "NATS_CREDS", "expected a user's JWT"),
            (&[("NATS_CREDS", "/nowhere")], "NATS_CREDS", "No such file"),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn by_tls_and_by_mutual_tls() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let place = Place::new();
    certificates::make(&place, "ca", &["server", "client"]);
    certificates::make(&place, "other-ca", &["other-client"]);
    let namespace = or_skip!(Kubernetes::shared().await).namespace().await;
    let [ca, cert, key, other_ca, other_cert, other_key] =
        ["ca.pem", "client.pem", "client.key", "other-ca.pem", "other-client.pem", "other-client.key"]
            .map(|name| place.text(name));
    let no_pem = place.write("no.pem", "nothing\n");
    let mut env = passwords();
    env.push(("NATS_SERVER_CERT", place.text("server.pem")));
    env.push(("NATS_SERVER_KEY", place.text("server.key")));
    env.push(("NATS_CLIENT_CA", ca.clone()));
    let secret = password("dispatcher");
    let login = [("NATS_USER", "dispatcher"), ("NATS_PASSWORD", secret.as_str())];
    let and = |more: &[(&'static str, &'static str)]| -> Vec<(&str, &str)> { [&login[..], more].concat() };
    let leak = |text: &String| -> &'static str { text.clone().leak() };
    let (ca, other_ca, no_pem) =
        (("NATS_CA", leak(&ca)), ("NATS_CA", leak(&other_ca)), ("NATS_CA", leak(&no_pem)));
    let mine = [("NATS_CERT", leak(&cert)), ("NATS_KEY", leak(&key))];
    let others = [("NATS_CERT", leak(&other_cert)), ("NATS_KEY", leak(&other_key))];

    let eyes = || by_tls(&place, options("administrator"));
    let nats = place.serve(&["accounts.conf", "tls.conf"], &env, eyes()).await;
    holds(
        &nats,
        &namespace,
        &[&and(&[ca])],
        &[
            (&and(&[other_ca]), "NATS_CA", "invalid peer certificate"),
            (&and(&[]), "NATS_CA", ""),
            (&and(&[no_pem]), "NATS_CA", "expected PEM"),
            (&and(&[("NATS_CA", "/nowhere")]), "NATS_CA", "No such file"),
            (&[ca, ("NATS_USER", "dispatcher"), ("NATS_PASSWORD", "wrong")], "NATS_USER", "authorization"),
        ],
    )
    .await;
    drop(nats);

    let eyes = eyes().add_client_certificate(place.path("client.pem"), place.path("client.key"));
    let nats = place.serve(&["accounts.conf", "tls-mutual.conf"], &env, eyes).await;
    holds(
        &nats,
        &namespace,
        &[&and(&[ca, mine[0], mine[1]])],
        &[
            (&and(&[ca]), "NATS_CERT", "cannot connect"),
            (&and(&[ca, others[0], others[1]]), "NATS_CERT", "cannot connect"),
            (&and(&[ca, mine[0], ("NATS_KEY", "/nowhere")]), "NATS_KEY", "No such file"),
            (&and(&[ca, mine[0], others[1]]), "NATS_CERT", "certificate"),
        ],
    )
    .await;
}

/// The files as they are shipped, each as the server takes it.
#[tokio::test(flavor = "multi_thread")]
async fn the_shipped_servers_are_accepted() {
    let place = Place::new();
    certificates::make(&place, "ca", &["server"]);
    let mut env = passwords();
    env.push(("NATS_SERVER_CERT", place.text("server.pem")));
    env.push(("NATS_SERVER_KEY", place.text("server.key")));
    for config in ["server.conf", "secured.conf"] {
        let mut server = std::process::Command::new(dispatcher_tests::paths::nats_server().unwrap());
        server.args(["-t", "-c", &place.text(config)]);
        server.envs(env.iter().map(|(name, value)| (name, format!("\"{value}\""))));
        let checked = server.output().unwrap();
        assert!(checked.status.success(), "{config}: {}", String::from_utf8_lossy(&checked.stderr));
    }
}
