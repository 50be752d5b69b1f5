//! The inner process of `testbed kubernetes`: etcd, API server, controller manager, scheduler, and
//! optionally a node.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use dispatcher_tests::kubernetes::{Options, ready};
use dispatcher_tests::{paths, ports, wait};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::commands::{self, Commands};
use crate::service::Service;
use crate::{components, node};

/// How long the API server may take to become ready.
const READY: Duration = Duration::from_secs(180);

/// The running components.
struct Cluster {
    folder: PathBuf,
    services: Vec<Service>,
    kubeconfig: PathBuf,
    etcd: String,
}

pub(crate) async fn serve(folder: &str, options: &str) -> ExitCode {
    let folder = Path::new(folder);
    let etcd = format!("http://127.0.0.1:{}", ports::free());
    let kubeconfig = folder.join("admin.kubeconfig");
    let mut cluster = Cluster { folder: folder.to_owned(), services: vec![], kubeconfig, etcd };
    let options = serde_json::from_str(options).map_err(|error| format!("options: {error}"));
    let started = match options {
        Ok(options) => cluster.start(folder, &options).await,
        Err(error) => Err(error),
    };
    commands::serve(started, cluster).await
}

impl Cluster {
    async fn start(&mut self, folder: &Path, options: &Options) -> Result<Value, String> {
        let api = ports::free();
        self.services = components::all(folder, options, &self.etcd, api)?;
        openssl_key(folder).await?;
        write(
            folder,
            "tokens.csv",
            "admin-token,admin,admin,system:masters\nnode-token,system:node:node-1,node-1,system:nodes\n",
        )?;
        // The API server generates its certificate, which the other components need, before it
        // listens.
        for name in ["etcd", "apiserver"] {
            self.service(name)?.start()?;
        }
        self.write_kubeconfigs(folder, api).await?;
        for name in ["controller-manager", "scheduler"] {
            self.service(name)?.start()?;
        }
        let containerd = match options.node {
            true => Some(node::containerd(folder).await?),
            false => None,
        };
        self.ready().await?;
        if let Some(containerd) = containerd {
            self.services.extend(node::start(folder, &self.kubeconfig, containerd).await?);
        }
        Ok(json!({"kubeconfig": self.kubeconfig, "folder": folder, "etcd": self.etcd}))
    }

    fn service(&mut self, name: &str) -> Result<&mut Service, String> {
        let all: Vec<String> = self.services.iter().map(|service| service.name().to_owned()).collect();
        let found = self.services.iter_mut().find(|service| service.name() == name);
        found.ok_or_else(|| format!("no component {name:?}, only {all:?}"))
    }

    /// Writes kubeconfigs with the API server's certificate, so that clients verify it.
    async fn write_kubeconfigs(&mut self, folder: &Path, api: u16) -> Result<(), String> {
        let certificate = folder.join("pki/apiserver.crt");
        let apiserver = self.service("apiserver")?;
        wait::try_until("the API server's certificate", READY, || {
            let seen = apiserver.check().map(|()| certificate.exists().then_some(()));
            async move { seen.map_or_else(|error| Some(Err(error)), |seen| seen.map(Ok)) }
        })
        .await??;
        for user in ["admin", "node"] {
            let kubeconfig = json!({
                "apiVersion": "v1", "kind": "Config", "current-context": "testbed",
                "clusters": [{"name": "testbed", "cluster": {
                    "server": format!("https://127.0.0.1:{api}"), "certificate-authority": certificate}}],
                "users": [{"name": user, "user": {"token": format!("{user}-token")}}],
                "contexts": [{"name": "testbed", "context": {"cluster": "testbed", "user": user}}],
            });
            write(folder, &format!("{user}.kubeconfig"), &kubeconfig.to_string())?;
        }
        Ok(())
    }

    /// Waits until the API server is ready; fails if a component has exited.
    async fn ready(&mut self) -> Result<(), String> {
        let kubeconfig = self.kubeconfig.clone();
        let ready = wait::try_until("the API server to be ready", READY, || {
            let ended = self.services.iter_mut().find_map(Service::restart_if_exited);
            let kubeconfig = kubeconfig.clone();
            async move {
                if let Some(error) = ended { Ok(Err(error)) } else { ready::check(&kubeconfig).await.map(Ok) }
            }
        })
        .await;
        match ready {
            Ok(done) => done,
            Err(error) => Err(format!("{error}\n{}", self.service("apiserver")?.tail())),
        }
    }

    /// Uses etcd's HTTP gateway, since etcdctl is a separate package.
    async fn compact(&self) -> Result<Value, String> {
        let range =
            post(&self.etcd, "range", &json!({"key": "AA==", "range_end": "AA==", "limit": 1})).await?;
        let revision =
            range["header"]["revision"].as_str().ok_or(format!("no revision in {range}"))?.to_owned();
        post(&self.etcd, "compaction", &json!({"revision": revision, "physical": true})).await?;
        Ok(json!({"revision": revision}))
    }
}

impl Commands for Cluster {
    async fn execute(&mut self, verb: &str, name: &str) -> Result<Value, String> {
        if verb == "compact" {
            return self.compact().await;
        }
        if verb == "import" {
            let folder = self.folder.clone();
            return node::import(&folder, self.service("containerd")?, name).await.map(|()| json!({}));
        }
        let answer = self.service(name)?.execute(verb).await?;
        if verb == "start" {
            self.ready().await?;
        }
        Ok(answer)
    }

    async fn end(&mut self) {
        for service in self.services.iter_mut().rev() {
            let _ = service.kill().await;
        }
    }
}

/// Generates the key that signs `ServiceAccount` tokens.
async fn openssl_key(folder: &Path) -> Result<(), String> {
    let pki = folder.join("pki");
    std::fs::create_dir_all(&pki).map_err(|error| format!("{}: {error}", pki.display()))?;
    let mut command = Command::new(paths::program("openssl")?);
    run(command.args(["genrsa", "-out"]).arg(pki.join("sa.key")).arg("2048")).await.map(drop)
}

async fn post(etcd: &str, call: &str, body: &Value) -> Result<Value, String> {
    let mut command = Command::new(paths::program("curl")?);
    command.args(["--silent", "--show-error", "--fail-with-body", "--max-time", "30", "--data"]);
    let text = run(command.arg(body.to_string()).arg(format!("{etcd}/v3/kv/{call}"))).await?;
    serde_json::from_str(&text).map_err(|error| format!("{call}: {text:?}: {error}"))
}

/// Runs a command and returns its output.
pub(crate) async fn run(command: &mut Command) -> Result<String, String> {
    let what = format!("{:?}", command.as_std());
    let output = command.output().await.map_err(|error| format!("{what}: {error}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(format!("{what}: {}{}", text(&output.stdout), text(&output.stderr))),
    }
}

/// Writes a file in the cluster's folder.
pub(crate) fn write(folder: &Path, name: &str, text: &str) -> Result<(), String> {
    let path = folder.join(name);
    std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))
}
