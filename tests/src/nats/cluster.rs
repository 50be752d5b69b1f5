//! A cluster of three NATS servers: its leaders, and the server of a client.

use std::fmt::Write;

use async_nats::ConnectOptions;
use async_nats::jetstream;
use futures::future::try_join_all;
use serde_json::{Value, json};

use super::{Nats, Node};
use crate::wait::{TIMEOUT, until};
use crate::{dispatcher, paths, ports};

/// With three servers one may be lost.
const NODES: usize = 3;

/// The shortest lame duck period: clients are disconnected within a second.
pub(super) const LAME_DUCK: &str = "lame_duck_grace_period: \"1s\"\nlame_duck_duration: \"30s\"\n";

impl Nats {
    /// Starts a cluster of three processes. The URL names all of them.
    pub async fn cluster() -> Self {
        let nodes = start().await.unwrap_or_else(|error: String| panic!("a NATS cluster: {error}"));
        let urls: Vec<_> = nodes.iter().map(|node| node.url.clone()).collect();
        let nats =
            Self { url: urls.join(","), nodes, in_container: false, options: ConnectOptions::default() };
        nats.until_ready().await.unwrap_or_else(|error| panic!("a NATS cluster: {error}"));
        nats.until_in_sync().await;
        nats
    }

    /// Whether there is more than one server.
    #[must_use]
    pub fn is_cluster(&self) -> bool {
        self.nodes.len() > 1
    }

    /// Waits until every server reports that all its streams and consumers are current.
    pub async fn until_in_sync(&self) {
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

    /// Waits for the leader of a stream.
    pub async fn stream_leader(&self, stream: &str) -> &Node {
        self.leader(&format!("STREAM.INFO.{stream}")).await
    }

    /// Waits for the leader of a consumer.
    pub async fn consumer_leader(&self, stream: &str, consumer: &str) -> &Node {
        self.leader(&format!("CONSUMER.INFO.{stream}.{consumer}")).await
    }

    /// Makes the leader of a stream, or of `stream.consumer`, step down.
    pub async fn step_down(&self, what: &str) {
        let kind = if what.contains('.') { "CONSUMER" } else { "STREAM" };
        let context = jetstream::new(self.client().await);
        until("a leader to step down", TIMEOUT, || async {
            let answer = context.request(format!("{kind}.LEADER.STEPDOWN.{what}"), &json!({})).await;
            let answer: Value = answer.map_err(|error| error.to_string())?;
            if answer["success"] == true { Ok(()) } else { Err(answer.to_string()) }
        })
        .await;
    }

    /// Waits for the server that a dispatcher is connected to.
    pub async fn server_of_dispatcher(&self) -> &Node {
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
        until(&format!("a leader in the answer of {subject}"), TIMEOUT, || async {
            let answer: Value =
                context.request(subject.to_owned(), &json!({})).await.map_err(|error| error.to_string())?;
            let node = self.nodes.iter().find(|node| answer["cluster"]["leader"] == node.name);
            node.ok_or_else(|| answer.to_string())
        })
        .await
    }
}

impl Node {
    /// Sends a GET to its monitoring endpoint.
    async fn ask(&self, path: &str) -> Result<(u16, String), String> {
        let monitor = self.monitor.as_ref().ok_or("no monitoring endpoint")?;
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
            let setting = (paths::nats_server()?, args, vec![]);
            Node::process(&name, port, Some(monitor), folder, setting).await
        }
    });
    try_join_all(nodes).await
}
