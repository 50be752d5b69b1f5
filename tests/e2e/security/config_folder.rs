//! A copy of `nats-config/` with test passwords, a server that uses it, and clients of that server.

use std::path::PathBuf;

use async_nats::{Client, ConnectOptions};
use dispatcher_tests::nats::{Nats, Setup};
use dispatcher_tests::test_env::{TestEnv, shipped_config};
use dispatcher_tests::wait::TIMEOUT;
use dispatcher_tests::{Kubernetes, paths};
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A copy of `nats-config/`. The server and its clients read it.
pub(crate) struct ConfigFolder {
    folder: TempDir,
}

/// The password of a user in the tests.
pub(crate) fn password(user: &str) -> String {
    format!("password of {user}")
}

/// Options of a client that authenticates by password and uses the inbox prefix of its role.
pub(crate) fn options(user: &str) -> ConnectOptions {
    ConnectOptions::with_user_and_password(user.to_owned(), password(user))
        .custom_inbox_prefix(format!("_INBOX.{user}"))
}

impl ConfigFolder {
    /// Copies the shipped files.
    pub(crate) fn new() -> Self {
        let folder = paths::temp_dir("nats-config").unwrap();
        let from = paths::workspace().join("nats-config");
        for part in ["", "roles", "prefixes/blue", "prefixes/green"] {
            std::fs::create_dir_all(folder.path().join(part)).unwrap();
            for entry in std::fs::read_dir(from.join(part)).unwrap() {
                let file = entry.unwrap();
                if file.path().extension().is_some_and(|extension| extension == "conf") {
                    std::fs::copy(file.path(), folder.path().join(part).join(file.file_name())).unwrap();
                }
            }
        }
        Self { folder }
    }

    /// The path of a file in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The path of a file, as text.
    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Writes a file atomically, as the kubelet updates a Secret, and returns its path.
    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        let temporary = self.path("temporary");
        std::fs::write(&temporary, text).unwrap();
        std::fs::rename(temporary, self.path(name)).unwrap();
        self.text(name)
    }

    /// Replaces text in a shipped file.
    pub(crate) fn edit(&self, name: &str, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.path(name)).unwrap();
        assert!(text.contains(from), "{name} does not contain {from:?}");
        self.write(name, &text.replace(from, to));
    }

    /// Starts a server with some of the shipped files. Its log has every protocol operation (`-V`).
    pub(crate) async fn serve(
        &self,
        files: &[&str],
        env: &[(&str, String)],
        options: ConnectOptions,
    ) -> Nats {
        let main: String = files.iter().map(|file| format!("include \"{file}\"\n")).collect();
        let config = self.write("main.conf", &main);
        // Quoted, so that the server does not parse a value as a number or a variable.
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), format!("\"{value}\""))).collect();
        let args = vec!["--config".to_owned(), config, "-V".to_owned()];
        Nats::process_of(Setup { args, env, options, ..Setup::default() }).await
    }

    /// Starts a server with passwords. The test itself connects as the administrator.
    pub(crate) async fn by_password(&self, file: &str) -> Nats {
        self.serve(&[file], &passwords(), options("administrator")).await
    }
}

/// The environment variables of the server with the passwords of all users.
pub(crate) fn passwords() -> Vec<(&'static str, String)> {
    let entry = |variable, user| (variable, password(user));
    vec![
        entry("DISPATCHER_PASSWORD", "dispatcher"),
        entry("ADMINISTRATOR_PASSWORD", "administrator"),
        entry("SUBMITTER_PASSWORD", "submitter"),
        entry("READER_PASSWORD", "reader"),
        entry("SYSTEM_PASSWORD", "system"),
        entry("ACME_PASSWORD", "acme"),
        entry("GLOBEX_PASSWORD", "globex"),
        entry("BLUE_PASSWORD", "blue"),
        entry("GREEN_PASSWORD", "green"),
        entry("GREEN_ADMINISTRATOR_PASSWORD", "green-administrator"),
        entry("CLIENT_PASSWORD", "client"),
    ]
}

/// A test environment on this server, whose dispatcher authenticates by password.
pub(crate) async fn password_env(nats: Nats) -> Result<TestEnv, String> {
    let namespace = Kubernetes::shared().await?.namespace().await;
    let mut env = TestEnv::new(nats, namespace).await;
    let login = [("NATS_USER", "dispatcher".to_owned()), ("NATS_PASSWORD", password("dispatcher"))];
    env.settings = login.map(|(name, value)| (name.to_owned(), value)).to_vec();
    Ok(env)
}

/// Connects as this user.
pub(crate) async fn client(nats: &Nats, user: &str) -> Client {
    options(user).connect(&nats.url).await.unwrap()
}

/// Creates the consumer that the permissions of a reader name.
pub(crate) async fn create_reader_consumer(env: &TestEnv) {
    let config = json!({"durable_name": "reader", "ack_policy": "explicit", "deliver_policy": "all"});
    let subject = "CONSUMER.DURABLE.CREATE.JOB_STATUS.reader";
    let query = json!({"stream_name": "JOB_STATUS", "config": config});
    let created: serde_json::Value = env.jetstream.request(subject, &query).await.unwrap();
    assert!(created["error"].is_null(), "{created}");
}

/// The uid of the namespace of the Jobs.
async fn namespace_uid(env: &TestEnv) -> String {
    let namespaces: kube::Api<k8s_openapi::api::core::v1::Namespace> =
        kube::Api::all(env.namespace.client.clone());
    namespaces.get(&env.namespace.name).await.unwrap().metadata.uid.unwrap()
}

/// Creates the streams and consumers, as an administrator does before a start with
/// `--no-provision`.
pub(crate) async fn create_streams(env: &TestEnv) {
    for stream in ["JOBS", "JOB_STATUS", "JOB_REJECTED", "KV_JOB_CANCELS"] {
        let mut config = shipped_config(stream);
        if stream == "JOB_STATUS" {
            config["metadata"] = json!({"natsjobs.dev/namespace-uid": namespace_uid(env).await});
        }
        env.create_stream(&config).await;
    }
    for template in ["memory", "simple"] {
        let name = format!("dispatcher-{template}");
        let query = json!({"stream_name": "JOBS", "config": shipped_config(&name)});
        let subject = format!("CONSUMER.DURABLE.CREATE.JOBS.{name}");
        let created: serde_json::Value = env.jetstream.request(subject, &query).await.unwrap();
        assert!(created["error"].is_null(), "{created}");
    }
}

/// Sends one operation of the NATS protocol as this user and returns the error of the server.
pub(crate) async fn send_operation(nats: &Nats, user: &str, operation: &[u8]) -> Result<(), String> {
    let mut server = TcpStream::connect(nats.url.trim_start_matches("nats://")).await.unwrap();
    let login = json!({"user": user, "pass": password(user), "headers": true, "verbose": false});
    let sent = [format!("CONNECT {login}\r\n").as_bytes(), operation, b"PING\r\n"].concat();
    server.write_all(&sent).await.unwrap();
    let mut answer = Vec::new();
    while !answer.windows(6).any(|end| end == b"PONG\r\n") {
        let read = server.read_buf(&mut answer);
        let read = tokio::time::timeout(TIMEOUT, read).await.expect("no answer from the server").unwrap();
        if read == 0 {
            break;
        }
    }
    let answer = String::from_utf8_lossy(&answer);
    answer.lines().find(|line| line.starts_with("-ERR")).map_or(Ok(()), |error| Err(error.to_owned()))
}

/// A `PUB` operation for [`send_operation`].
pub(crate) fn publish(subject: &str, reply: &str, payload: &str) -> Vec<u8> {
    format!("PUB {subject} {reply} {}\r\n{payload}\r\n", payload.len()).into_bytes()
}
