//! An operator with its accounts and users, as `nsc` and `nats auth` make them: JWTs of NATS (version 2), signed by nkeys.

use std::time::SystemTime;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use nkeys::KeyPair;
use serde_json::{Value, json};

use super::rights::allowed;

/// See the module.
pub(super) struct Operator {
    key: KeyPair,
    /// The operator's own JWT.
    pub(super) jwt: String,
    /// The account of the server itself.
    pub(super) system: Account,
    /// The account with the streams.
    pub(super) dispatcher: Account,
}

/// An account's key; its JWT is made anew with each change.
pub(super) struct Account {
    name: &'static str,
    key: KeyPair,
}

impl Operator {
    pub(super) fn new() -> Self {
        let key = KeyPair::new_operator();
        let [system, dispatcher] =
            ["SYS", "DISPATCHER"].map(|name| Account { name, key: KeyPair::new_account() });
        let claims = json!({"type": "operator", "version": 2, "system_account": system.key.public_key()});
        let jwt = sign(&key, "operator", &key.public_key(), &claims);
        Self { key, jwt, system, dispatcher }
    }

    /// The JWT of an account with JetStream, in which these users' keys are revoked.
    pub(super) fn account(&self, account: &Account, revoked: &[&KeyPair]) -> String {
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
}

impl Account {
    pub(super) fn public_key(&self) -> String {
        self.key.public_key()
    }

    /// The credentials file of a user of this account, with the permissions of a shipped role, or all.
    pub(super) fn creds(&self, user: &KeyPair, role: Option<&str>) -> String {
        let (publish, subscribe) = role.map(allowed).unwrap_or_default();
        let of = |subjects: Vec<String>| {
            if subjects.is_empty() { json!({}) } else { json!({ "allow": subjects }) }
        };
        let claims = json!({"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1,
                            "pub": of(publish), "sub": of(subscribe)});
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
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(&header), part(&claims));
    let signature = URL_SAFE_NO_PAD.encode(issuer.sign(signed.as_bytes()).unwrap());
    format!("{signed}.{signature}")
}
