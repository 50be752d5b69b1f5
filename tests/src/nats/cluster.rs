//! Three NATS servers that are one JetStream: who leads what, and who is connected where.

use std::fmt::Write;

use async_nats::ConnectOptions;
use async_nats::jetstream;
use futures::future::try_join_all;
use serde_json::{Value, json};

use super::{Nats, Node};
use crate::wait::{TIMEOUT, until};
use crate::{dispatcher, paths, ports};

/// How many servers: one may be lost.
const NODES: usize = 3;

/// What a server of the tests does in lame duck mode: it begins soon to send its clients away. Each goes within a second; the duration
/// is the shortest that the server takes, and is for thousands of clients.
pub(super) const LAME_DUCK: &str = "lame_duck_grace_period: \"1s\"\nlame_duck_duration: \"30s\"\n";

impl Nats {
    /// Three plain processes that are one JetStream, which has a leader; the URL names all three.
    pub async fn cluster() -> Self {
        let nodes = start().await.unwrap_or_else(|error: String| panic!("a NATS cluster: {error}"));
        let urls: Vec<_> = nodes.iter().map(|node| node.url.clone()).collect();
        let nats =
            Self { url: urls.join(","), nodes, in_container: false, options: ConnectOptions::default() };
        nats.until_ready().await.unwrap_or_else(|error| panic!("a NATS cluster: {error}"));
        nats.until_whole().await;
        nats
    }

    /// Whether it is more than one server.
    #[must_use]
    pub fn is_cluster(&self) -> bool {
        self.nodes.len() > 1
    }

    /// Waits until each server says that it is up to date with all that it holds.
    pub async fn until_whole(&self) {
        let healthy = self.nodes.iter().map(|node| async move {
            until(&format!("{} to be up to date", node.name), TIMEOUT, || async {
                match node.ask("/healthz").await? {
                    (200, _) => Ok(()),
                    (status, body) => Err(format!("{status}: {body}")),
                }
            })
            .await;
        });
        futures::future::join_all(healthy).await;
    }

    /// The server that leads a stream, waited for.
    pub async fn stream_leader(&self, stream: &str) -> &Node {
        self.leader(&format!("STREAM.INFO.{stream}")).await
    }

    /// The server that leads a consumer, waited for.
    pub async fn consumer_leader(&self, stream: &str, consumer: &str) -> &Node {
        self.leader(&format!("CONSUMER.INFO.{stream}.{consumer}")).await
    }

    /// Asks the leader of a stream, or of `stream.consumer`, to step down, and waits until it is done.
    pub async fn step_down(&self, what: &str) {
        let kind = if what.contains('.') { "CONSUMER" } else { "STREAM" };
        let context = jetstream::new(self.client().await);
        until("a leader to step down", TIMEOUT, || async {
            let asked = context.request(format!("{kind}.LEADER.STEPDOWN.{what}"), &json!({})).await;
            let answer: Value = asked.map_err(|error| error.to_string())?;
            if answer["success"] == true { Ok(()) } else { Err(answer.to_string()) }
        })
        .await;
    }

    /// The server that the dispatcher is connected to, waited for.
    pub async fn dispatchers(&self) -> &Node {
        until("the dispatcher to be connected", TIMEOUT, || async {
            for node in &self.nodes {
                let Ok((200, body)) = node.ask("/connz").await else { continue };
                let answer: Value = serde_json::from_str(&body).unwrap_or_default();
                let mut connections = answer["connections"].as_array().into_iter().flatten();
                if connections.any(|connection| connection["name"] == "dispatcher") {
                    return Some(node);
                }
            }
            None
        })
        .await
    }

    async fn leader(&self, subject: &str) -> &Node {
        let context = jetstream::new(self.client().await);
        until(&format!("the leader by {subject}"), TIMEOUT, || async {
            let answer: Value =
                context.request(subject.to_owned(), &json!({})).await.map_err(|error| error.to_string())?;
            let node = self.nodes.iter().find(|node| answer["cluster"]["leader"] == node.name);
            node.ok_or_else(|| answer.to_string())
        })
        .await
    }
}

impl Node {
    /// What its monitoring says.
    async fn ask(&self, path: &str) -> Result<(u16, String), String> {
        let monitor = self.monitor.as_ref().ok_or("it has no monitoring")?;
        dispatcher::get(monitor, path).await.map_err(|error| error.to_string())
    }
}

async fn start() -> Result<Vec<Node>, String> {
    let routes: Vec<_> = (0..NODES).map(|_| format!("nats://127.0.0.1:{}", ports::free())).collect();
    let nodes = routes.iter().enumerate().map(|(number, own)| {
        let routes = routes.join(", ");
        async move {
            let name = format!("nats-{number}");
            let folder = paths::temp_dir("nats")?;
            let (port, monitor) = (ports::free(), ports::free());
            let mut config = format!("server_name: {name}\nhttp: \"127.0.0.1:{monitor}\"\n{LAME_DUCK}");
            let listen = own.trim_start_matches("nats://");
            let _ = writeln!(config, "cluster {{name: jobs, listen: \"{listen}\", routes: [{routes}]}}");
            let file = folder.path().join("nats.conf");
            std::fs::write(&file, config).map_err(|error| format!("{}: {error}", file.display()))?;
            let args = vec!["--config".to_owned(), file.display().to_string()];
            Node::process(&name, port, Some(monitor), folder, (args, vec![])).await
        }
    });
    try_join_all(nodes).await
}
