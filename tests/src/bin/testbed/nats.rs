//! `testbed nats`: a NATS server in a container of the engine at `DOCKER_HOST`.

use std::process::ExitCode;
use std::time::Duration;

use dispatcher_tests::nats::STORE_LIMIT;
use dispatcher_tests::paths;
use serde_json::{Value, json};
use testcontainers_modules::nats::{Nats, NatsServerCmd};
use testcontainers_modules::testcontainers::core::IntoContainerPort;
use testcontainers_modules::testcontainers::runners::AsyncRunner;
use testcontainers_modules::testcontainers::{ContainerAsync, ImageExt};
use tokio::process::Command;

use crate::commands::{self, Commands};
use crate::control_plane::run;

const START: Duration = Duration::from_secs(180);
/// The server's configuration in the container.
const CONFIG: &str = "/store.conf";

/// The container. Its file system with the `JetStream` store lives until it is removed.
struct Container(Option<ContainerAsync<Nats>>);

pub(crate) async fn serve(port: &str) -> ExitCode {
    let mut container = Container(None);
    let started = match port.parse() {
        Ok(port) => container.start(port).await,
        Err(error) => Err(format!("port {port:?}: {error}")),
    };
    commands::serve(started, container).await
}

impl Container {
    async fn start(&mut self, port: u16) -> Result<Value, String> {
        get_image().await?;
        let arguments = NatsServerCmd::default().with_jetstream();
        let own = ["--store_dir", "/data", "--config", CONFIG].map(str::to_owned);
        let image = Nats::default().with_cmd(arguments.into_iter().chain(own)).with_tag(paths::NATS_VERSION);
        let image = image.with_copy_to(CONFIG, STORE_LIMIT.as_bytes().to_vec());
        let image = image.with_mapped_port(port, 4222.tcp()).with_startup_timeout(START);
        let container = image.start().await.map_err(|error| format!("NATS in a container: {error}"))?;
        let id = container.id().to_owned();
        self.0 = Some(container);
        Ok(json!({"container": id}))
    }

    fn container(&self) -> Result<&ContainerAsync<Nats>, String> {
        self.0.as_ref().ok_or_else(|| "no container".to_owned())
    }
}

impl Commands for Container {
    async fn execute(&mut self, verb: &str, _name: &str) -> Result<Value, String> {
        let container = self.container()?;
        let done = match verb {
            "kill" => run(docker()?.args(["kill", "--signal", "KILL", container.id()])).await.map(drop),
            "start" => container.start().await.map_err(|error| error.to_string()),
            "stop" => container.pause().await.map_err(|error| error.to_string()),
            "cont" => container.unpause().await.map_err(|error| error.to_string()),
            _ => Err(format!("unknown command {verb:?}")),
        };
        done.map(|()| json!({}))
    }

    async fn end(&mut self) {
        if let Some(container) = self.0.take() {
            // A paused container cannot be removed.
            let _ = container.unpause().await;
            if let Err(error) = container.rm().await {
                eprintln!("testbed: remove the container: {error}");
            }
        }
    }
}

fn docker() -> Result<Command, String> {
    paths::program("docker").map(Command::new)
}

/// The official image if the engine has it or can pull it, otherwise the one of
/// `tests/images/build`.
async fn get_image() -> Result<(), String> {
    let tag = format!("nats:{}", paths::NATS_VERSION);
    if run(docker()?.args(["image", "inspect", &tag])).await.is_ok() {
        return Ok(());
    }
    let own_engine = std::env::var("TESTBED_OWN_ENGINE").is_ok();
    if !own_engine && run(docker()?.args(["pull", "--quiet", &tag])).await.is_ok() {
        return Ok(());
    }
    run(docker()?.args(["load", "--quiet", "--input"]).arg(paths::image("nats")?)).await.map(drop)
}
