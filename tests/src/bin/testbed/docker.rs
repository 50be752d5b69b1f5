//! The inner process of `testbed docker`: dockerd with all its files in one folder, and a network
//! bridge.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use dispatcher_tests::helper::Program;
use dispatcher_tests::{paths, ports, wait};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::commands::{self, Commands};
use crate::control_plane::run;
use crate::service::Service;

const READY: Duration = Duration::from_secs(180);

struct Engine(Service);

impl Commands for Engine {
    async fn execute(&mut self, verb: &str, _name: &str) -> Result<Value, String> {
        self.0.execute(verb).await
    }

    async fn end(&mut self) {
        let _ = self.0.kill().await;
    }
}

pub(crate) async fn serve(folder: &str, bridge: &str) -> ExitCode {
    let folder = Path::new(folder);
    let path = paths::program("dockerd");
    let at = |path: &str| folder.join(path).display().to_string();
    let host = format!("unix://{}", at("docker.sock"));
    let mut engine = Engine(Service::new(Program {
        name: "dockerd".to_owned(),
        path: path.clone().unwrap_or_default(),
        args: vec![
            format!("--host={host}"),
            format!("--data-root={}", at("data")),
            format!("--exec-root={}", at("exec")),
            format!("--pidfile={}", at("docker.pid")),
            format!("--bridge={bridge}"),
            format!("--cgroup-parent=/{}", folder.file_name().unwrap_or_default().to_string_lossy()),
            // A proxy process serves the ports, so the machine's packet filter stays unchanged.
            "--iptables=false".to_owned(),
            "--ip6tables=false".to_owned(),
            "--ip-masq=false".to_owned(),
        ],
        log: folder.join("dockerd.log"),
        ..Program::default()
    }));
    let started = match path {
        Ok(_) => start(&mut engine.0, &host).await,
        Err(error) => Err(error),
    };
    commands::serve(started, engine).await
}

async fn start(engine: &mut Service, host: &str) -> Result<Value, String> {
    engine.start()?;
    let docker = paths::program("docker")?;
    let up = wait::try_until("dockerd to answer", READY, || {
        let runs = engine.check();
        let mut command = Command::new(&docker);
        command.args(["--host", host, "version", "--format", "{{.Server.Version}}"]).kill_on_drop(true);
        async move {
            match runs {
                Ok(()) => run(&mut command).await.map(Ok),
                Err(error) => Ok(Err(error)),
            }
        }
    });
    let version = match up.await {
        Ok(version) => version?,
        Err(error) => return Err(format!("{error}\n{}", engine.tail())),
    };
    Ok(json!({"host": host, "version": version.trim()}))
}

fn bridge(folder: &Path) -> String {
    // The kernel's limit is 15 bytes.
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    format!("testbed-{}", name.rsplit('-').next().unwrap_or_default())
}

/// Creates a network bridge with a subnet that no route of this machine uses.
pub(crate) async fn create_bridge(folder: &Path) -> Result<String, String> {
    let name = bridge(folder);
    let ip = paths::program("ip")?;
    let routes = run(Command::new(&ip).args(["route", "show"])).await?;
    let prefix = (0..200).map(|_| format!("10.{}.{}", 64 + ports::free() % 60, ports::free() % 256));
    let prefix = { prefix }.find(|prefix| !routes.contains(&format!("{prefix}."))).ok_or("no free subnet")?;
    run(Command::new(&ip).args(["link", "add", "name", &name, "type", "bridge"])).await?;
    run(Command::new(&ip).args(["address", "add", &format!("{prefix}.1/24"), "dev", &name])).await?;
    run(Command::new(&ip).args(["link", "set", &name, "up"])).await?;
    Ok(name)
}

/// Deletes the bridge, if it exists.
pub(crate) async fn remove_bridge(folder: &Path) {
    if let Ok(ip) = paths::program("ip") {
        let _ = run(Command::new(ip).args(["link", "delete", &bridge(folder)])).await;
    }
}
