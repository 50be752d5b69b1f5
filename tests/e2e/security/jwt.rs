//! A NATS operator with accounts and users: JWTs (version 2) signed by nkeys, as `nsc` creates
//! them.

use std::time::SystemTime;

use async_nats::{Client, ConnectOptions};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use dispatcher_tests::Nats;
use nkeys::KeyPair;
use serde_json::{Value, json};

use super::certificates;
use super::config_folder::ConfigFolder;
use super::permissions::allowed;

/// The signing key of the operator and its accounts.
pub(crate) struct Operator {
    key: KeyPair,
    /// The JWT of the operator.
    pub(crate) jwt: String,
    /// The system account.
    pub(crate) system: Account,
    /// The account with the streams.
    pub(crate) dispatcher: Account,
}

/// The key of an account. Each change of the account needs a new JWT.
pub(crate) struct Account {
    name: &'static str,
    key: KeyPair,
}

impl Operator {
    pub(crate) fn new() -> Self {
        let key = KeyPair::new_operator();
        let [system, dispatcher] =
            ["SYS", "DISPATCHER"].map(|name| Account { name, key: KeyPair::new_account() });
        let claims = json!({"type": "operator", "version": 2, "system_account": system.key.public_key()});
        let jwt = sign(&key, "operator", &key.public_key(), &claims);
        Self { key, jwt, system, dispatcher }
    }

    /// The JWT of an account with `JetStream` that revokes these users.
    pub(crate) fn account(&self, account: &Account, revoked: &[&KeyPair]) -> String {
        let all = ["subs", "data", "payload", "imports", "exports", "conn", "leaf", "streams", "consumer"];
        let mut limits: Value = all.iter().map(|limit| ((*limit).to_owned(), json!(-1))).collect();
        limits["wildcards"] = true.into();
        if account.name != "SYS" {
            limits["mem_storage"] = json!(-1);
            limits["disk_storage"] = json!(-1);
        }
        let revocations: Value = revoked.iter().map(|key| (key.public_key(), json!(now() + 1))).collect();
        let claims = json!({"type": "account", "version": 2, "limits": limits, "revocations": revocations,
                            "default_permissions": {"pub": {}, "sub": {}}});
        sign(&self.key, account.name, &account.key.public_key(), &claims)
    }

    /// Starts a server in operator mode with both accounts. The test itself has all permissions in
    /// the account of the dispatcher.
    pub(crate) async fn serve(&self, config: &ConfigFolder) -> Nats {
        self.serve_with(config, &["operator.conf"], vec![], |options| options).await
    }

    /// Like [`Self::serve`], with TLS and a certificate signed by `ca.pem`.
    pub(crate) async fn serve_with_tls(&self, config: &ConfigFolder) -> Nats {
        certificates::create(config, "ca", &["server"]);
        let env = vec![
            ("NATS_SERVER_CERT", config.text("server.pem")),
            ("NATS_SERVER_KEY", config.text("server.key")),
        ];
        self.serve_with(config, &["operator.conf", "tls.conf"], env, |options| with_tls(config, options))
            .await
    }

    async fn serve_with(
        &self,
        config: &ConfigFolder,
        files: &[&str],
        mut env: Vec<(&str, String)>,
        options: impl FnOnce(ConnectOptions) -> ConnectOptions,
    ) -> Nats {
        std::fs::create_dir(config.path("jwt")).unwrap();
        for account in [&self.system, &self.dispatcher] {
            config.write(&format!("jwt/{}.jwt", account.public_key()), &self.account(account, &[]));
        }
        env.push(("NATS_OPERATOR", self.jwt.clone()));
        env.push(("NATS_SYSTEM_ACCOUNT", self.system.public_key()));
        env.push(("NATS_RESOLVER_DIR", config.text("jwt")));
        config.serve(files, &env, options(self.dispatcher.options())).await
    }

    /// Revokes these users of the dispatcher's account, by a client of the system account.
    pub(crate) async fn revoke(&self, system: &Client, users: &[&KeyPair]) {
        let account = self.account(&self.dispatcher, users);
        let subject = format!("$SYS.REQ.ACCOUNT.{}.CLAIMS.UPDATE", self.dispatcher.public_key());
        let answer = system.request(subject, account.into()).await.unwrap();
        let answer = String::from_utf8_lossy(&answer.payload).into_owned();
        assert!(answer.contains("\"code\":200"), "{answer}");
    }
}

/// Options of a client that uses TLS and trusts `ca.pem`.
pub(crate) fn with_tls(config: &ConfigFolder, options: ConnectOptions) -> ConnectOptions {
    options.add_root_certificates(config.path("ca.pem")).require_tls(true)
}

impl Account {
    pub(crate) fn public_key(&self) -> String {
        self.key.public_key()
    }

    /// Options of a new user with all permissions in this account.
    pub(crate) fn options(&self) -> ConnectOptions {
        ConnectOptions::with_credentials(&self.creds(&KeyPair::new_user(), None)).unwrap()
    }

    /// The credentials file of a user of this account, with the permissions of a shipped role or
    /// with all permissions.
    pub(crate) fn creds(&self, user: &KeyPair, role: Option<&str>) -> String {
        let (publish, subscribe) = role.map(allowed).unwrap_or_default();
        let permission = |subjects: Vec<String>| {
            if subjects.is_empty() { json!({}) } else { json!({ "allow": subjects }) }
        };
        let claims = json!({"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1,
                            "pub": permission(publish), "sub": permission(subscribe)});
        let jwt = sign(&self.key, "user", &user.public_key(), &claims);
        format!(
            "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
            user.seed().unwrap()
        )
    }
}

fn now() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs()
}

fn sign(issuer: &KeyPair, name: &str, subject: &str, nats: &Value) -> String {
    let header = json!({"typ": "JWT", "alg": "ed25519-nkey"});
    let claims = json!({"jti": format!("{subject}-{}", now()), "iat": now(), "iss": issuer.public_key(), "name": name,
                        "sub": subject, "nats": nats});
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", encode(&header), encode(&claims));
    let signature = URL_SAFE_NO_PAD.encode(issuer.sign(signed.as_bytes()).unwrap());
    format!("{signed}.{signature}")
}
