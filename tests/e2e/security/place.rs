//! A copy of `nats-config/` with secrets of the test's own, a server that runs with it, and its clients.

use std::path::PathBuf;

use async_nats::{Client, ConnectOptions};
use dispatcher_tests::nats::{Nats, Setup};
use dispatcher_tests::{Kubernetes, paths};
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use dispatcher_tests::test_env::{TestEnv as World, shipped_config as shipped};
use dispatcher_tests::wait::TIMEOUT as PATIENCE;

/// See the module.
pub(crate) struct Place {
    folder: TempDir,
}

/// What a user's password is in the tests.
pub(crate) fn password(user: &str) -> String {
    format!("the secret of {user}")
}

/// The options of a client that logs in by password, with the inbox that its role has.
pub(crate) fn options(user: &str) -> ConnectOptions {
    ConnectOptions::with_user_and_password(user.to_owned(), password(user))
        .custom_inbox_prefix(format!("_INBOX.{user}"))
}

impl Place {
    /// A copy of the shipped files.
    pub(crate) fn new() -> Self {
        let folder = paths::temp_dir("nats-config").unwrap();
        let from = paths::workspace().join("nats-config");
        std::fs::create_dir(folder.path().join("roles")).unwrap();
        for part in ["", "roles"] {
            for entry in std::fs::read_dir(from.join(part)).unwrap() {
                let file = entry.unwrap();
                if file.path().extension().is_some_and(|extension| extension == "conf") {
                    std::fs::copy(file.path(), folder.path().join(part).join(file.file_name())).unwrap();
                }
            }
        }
        Self { folder }
    }

    /// The path of a file here.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The same, for a setting.
    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Writes a file whole, as a Secret of Kubernetes changes: it is never half there. Its path.
    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        let half = self.path("half");
        std::fs::write(&half, text).unwrap();
        std::fs::rename(half, self.path(name)).unwrap();
        self.text(name)
    }

    /// Puts another text into a shipped file.
    pub(crate) fn edit(&self, name: &str, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.path(name)).unwrap();
        assert!(text.contains(from), "{name} has {from:?}");
        self.write(name, &text.replace(from, to));
    }

    /// A server with these of the shipped files, and every protocol line in its log.
    pub(crate) async fn serve(
        &self,
        files: &[&str],
        env: &[(&str, String)],
        options: ConnectOptions,
    ) -> Nats {
        let main: String = files.iter().map(|file| format!("include \"{file}\"\n")).collect();
        let config = self.write("main.conf", &main);
        // In quotes, so that no value is taken for a number or a variable.
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), format!("\"{value}\""))).collect();
        Nats::process_of(Setup { args: vec!["--config".to_owned(), config, "-V".to_owned()], env, options })
            .await
    }

    /// A server with users by password; the test's own eyes are the administrator.
    pub(crate) async fn by_password(&self, file: &str) -> Nats {
        self.serve(&[file], &passwords(), options("administrator")).await
    }
}

/// The environment of the server for the files with passwords.
pub(crate) fn passwords() -> Vec<(&'static str, String)> {
    let of = |variable, user| (variable, password(user));
    vec![
        of("DISPATCHER_PASSWORD", "dispatcher"),
        of("ADMINISTRATOR_PASSWORD", "administrator"),
        of("SUBMITTER_PASSWORD", "submitter"),
        of("READER_PASSWORD", "reader"),
        of("SYSTEM_PASSWORD", "system"),
        of("ACME_PASSWORD", "acme"),
        of("GLOBEX_PASSWORD", "globex"),
    ]
}

/// A world on this server, whose dispatcher logs in by password.
pub(crate) async fn world(nats: Nats) -> Result<World, String> {
    let namespace = Kubernetes::shared().await?.namespace().await;
    let mut world = World::new(nats, namespace).await;
    let login = [("NATS_USER", "dispatcher".to_owned()), ("NATS_PASSWORD", password("dispatcher"))];
    world.settings = login.map(|(name, value)| (name.to_owned(), value)).to_vec();
    Ok(world)
}

/// A client of this user.
pub(crate) async fn client(nats: &Nats, user: &str) -> Client {
    options(user).connect(&nats.url).await.unwrap()
}

/// The consumer that a reader's permissions name.
pub(crate) async fn make_consumer_of_reader(world: &World) {
    let config = json!({"durable_name": "reader", "ack_policy": "explicit", "deliver_policy": "all"});
    let subject = "CONSUMER.DURABLE.CREATE.JOB_STATUS.reader";
    let query = json!({"stream_name": "JOB_STATUS", "config": config});
    let made: serde_json::Value = world.jetstream.request(subject, &query).await.unwrap();
    assert!(made["error"].is_null(), "{made}");
}

/// The uid of the Jobs' namespace.
async fn uid(world: &World) -> String {
    let namespaces: kube::Api<k8s_openapi::api::core::v1::Namespace> =
        kube::Api::all(world.namespace.client.clone());
    namespaces.get(&world.namespace.name).await.unwrap().metadata.uid.unwrap()
}

/// Makes the streams and consumers as an administrator does before `--no-provision`.
pub(crate) async fn make_streams(world: &World) {
    for stream in ["JOBS", "JOB_STATUS", "JOB_REJECTED", "KV_JOB_CANCELS"] {
        let mut config = shipped(stream);
        if stream == "JOB_STATUS" {
            config["metadata"] = json!({"natsjobs.dev/namespace-uid": uid(world).await});
        }
        world.create_stream(&config).await;
    }
    for template in ["memory", "simple"] {
        let name = format!("dispatcher-{template}");
        let query = json!({"stream_name": "JOBS", "config": shipped(&name)});
        let subject = format!("CONSUMER.DURABLE.CREATE.JOBS.{name}");
        let made: serde_json::Value = world.jetstream.request(subject, &query).await.unwrap();
        assert!(made["error"].is_null(), "{made}");
    }
}

/// Sends one operation as this user, in the protocol itself, and gives back what the server has against it.
pub(crate) async fn say(nats: &Nats, user: &str, operation: &[u8]) -> Result<(), String> {
    let mut server = TcpStream::connect(nats.url.trim_start_matches("nats://")).await.unwrap();
    let login = json!({"user": user, "pass": password(user), "headers": true, "verbose": false});
    let sent = [format!("CONNECT {login}\r\n").as_bytes(), operation, b"PING\r\n"].concat();
    server.write_all(&sent).await.unwrap();
    let mut answer = Vec::new();
    while !answer.windows(6).any(|end| end == b"PONG\r\n") {
        let read = server.read_buf(&mut answer);
        let read = tokio::time::timeout(PATIENCE, read).await.expect("an answer").unwrap();
        if read == 0 {
            break;
        }
    }
    let answer = String::from_utf8_lossy(&answer);
    answer.lines().find(|line| line.starts_with("-ERR")).map_or(Ok(()), |error| Err(error.to_owned()))
}

/// A publish, as [`say`] sends it.
pub(crate) fn publish(subject: &str, reply: &str, payload: &str) -> Vec<u8> {
    format!("PUB {subject} {reply} {}\r\n{payload}\r\n", payload.len()).into_bytes()
}
