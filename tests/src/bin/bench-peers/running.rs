//! A side that runs: its processes, its NATS and its namespace.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use dispatcher_tests::{Dispatcher, Kubernetes, Namespace, Nats, paths, ports};
use kube::api::{DeleteParams, ListParams};
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::{Instant, sleep};

use crate::jobs::Jobs;
use crate::process::{Process, pids};
use crate::requests::{Requester, WARM_UP, create_queue};
use crate::side::Side;
use crate::{argo, keda, manifest, measure};

/// How long a side may take to create its first Job: KEDA's default is a poll every 30 s.
const START: Duration = Duration::from_secs(120);
/// How often a side that may lose a request before it is ready gets another one.
const RETRY: Duration = Duration::from_secs(1);
/// After this time without a Job, the requests before the measurement are done.
const WARM: Duration = Duration::from_secs(2);

pub(crate) struct Running {
    // The order of the fields is the order in which they end.
    pub(crate) processes: Vec<Process>,
    pub(crate) requester: Requester,
    pub(crate) jobs: Jobs,
    pub(crate) namespace: Namespace,
    _nats: Option<Nats>,
    _folder: TempDir,
}

impl Running {
    /// Starts a side and waits until it has created a Job.
    pub(crate) async fn start(kubernetes: &Kubernetes, side: Side) -> Result<Self, String> {
        let folder = paths::temp_dir("peers")?;
        let namespace = kubernetes.namespace().await;
        let jobs = Jobs::watch(&namespace);
        if side == Side::Bare {
            let requester = Requester::api(&namespace.dispatcher_kubeconfig, &namespace.name)?;
            return Ok(Self { processes: vec![], requester, jobs, namespace, _nats: None, _folder: folder });
        }
        let monitor = format!("127.0.0.1:{}", ports::free());
        let nats = Nats::process_configured(&nats_config(folder.path(), &monitor).await?).await;
        let requester = match side {
            Side::Bare | Side::Dispatcher => Requester::stream(&nats, "jobs.simple.create").await?,
            Side::KedaShipped | Side::KedaLifted => {
                create_queue(&nats, keda::STREAM, keda::SUBJECT).await?;
                Requester::stream(&nats, keda::SUBJECT).await?
            }
            _ => Requester::core(&nats, argo::SUBJECT).await?,
        };
        let lifted = side == Side::KedaLifted;
        let processes = match side {
            Side::Bare | Side::Dispatcher => vec![dispatcher(&nats, &namespace, folder.path()).await?],
            Side::KedaShipped | Side::KedaLifted => {
                keda::start(lifted, kubernetes, &namespace, (folder.path(), folder.path())).await?
            }
            Side::ArgoShipped | Side::ArgoLifted | Side::ArgoAtLeastOnce | Side::ArgoNamed => {
                let settings = argo::Settings {
                    lifted: side != Side::ArgoShipped,
                    at_least_once: matches!(side, Side::ArgoAtLeastOnce | Side::ArgoNamed),
                    named: side == Side::ArgoNamed,
                };
                argo::start(settings, &nats, &namespace, folder.path()).await?
            }
        };
        let running = Self { processes, requester, jobs, namespace, _nats: Some(nats), _folder: folder };
        let warm = running.warm_up(side, lifted, &monitor).await;
        warm.map_err(|error| format!("{}: {error}\n{}", side.title(), running.logs()))?;
        Ok(running)
    }

    async fn warm_up(&self, side: Side, lifted: bool, monitor: &str) -> Result<(), String> {
        let end = Instant::now() + START;
        if matches!(side, Side::KedaShipped | Side::KedaLifted) {
            self.requester.send(WARM_UP).await?;
            keda::scale(lifted, monitor, &self.namespace).await?;
            self.jobs.at_least(1, START).await?;
        } else {
            let mut number = WARM_UP;
            while self.jobs.count() == 0 {
                if Instant::now() > end {
                    return Err(format!("no Job within {START:?}"));
                }
                self.requester.send(number).await?;
                number += 1;
                sleep(RETRY).await;
            }
        }
        self.jobs.quiet(WARM, START).await?;
        self.jobs.forget();
        Ok(())
    }

    pub(crate) async fn pids(&self) -> Result<Vec<u32>, String> {
        pids(&self.processes).await
    }

    /// The ends of the logs, for an error.
    pub(crate) fn logs(&self) -> String {
        self.processes.iter().map(Process::log).collect::<Vec<_>>().join("\n")
    }

    /// Ends the processes, then deletes the Jobs, so that the API server keeps its size.
    pub(crate) async fn end(self) -> Result<(), String> {
        let Self { processes, namespace, .. } = self;
        drop(processes);
        let (params, all) = (DeleteParams::background(), ListParams::default());
        let deleted = namespace.jobs.delete_collection(&params, &all).await;
        deleted.map(drop).map_err(|error| format!("delete the Jobs: {error}"))
    }
}

async fn dispatcher(nats: &Nats, namespace: &Namespace, folder: &Path) -> Result<Process, String> {
    let templates = folder.join("templates");
    let write = || {
        std::fs::create_dir_all(&templates)?;
        std::fs::write(templates.join("simple.yaml"), manifest::template().map_err(std::io::Error::other)?)
    };
    write().map_err(|error: std::io::Error| format!("{}: {error}", templates.display()))?;
    let builder = Dispatcher::builder(nats, namespace).templates(templates);
    // The level of a deployment; the testbed's default is `debug`.
    let builder =
        builder.env("RUST_LOG", "info").env("DISPATCHER_CONCURRENCY", &measure::IN_FLIGHT.to_string());
    builder.try_start().await.map(Process::Dispatcher)
}

/// The configuration of every side's server. Argo Events connects to its `EventBus` by TLS only; the
/// others, and its `EventSource`, without.
async fn nats_config(folder: &Path, monitor: &str) -> Result<String, String> {
    let (key, certificate) = (folder.join("tls.key"), folder.join("tls.crt"));
    let mut command = Command::new(paths::program("openssl")?);
    command.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]);
    command.args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]);
    command.arg("-keyout").arg(&key).arg("-out").arg(&certificate);
    let output = command.stdin(Stdio::null()).output().await.map_err(|error| format!("openssl: {error}"))?;
    if !output.status.success() {
        return Err(format!("openssl: {}", String::from_utf8_lossy(&output.stderr)));
    }
    // KEDA also expects the certificate of the authority.
    let copied = std::fs::copy(&certificate, folder.join("ca.crt"));
    copied.map_err(|error| format!("{}: {error}", certificate.display()))?;
    let (key, certificate) = (key.display(), certificate.display());
    Ok(format!(
        "http: \"{monitor}\"\ntls {{ cert_file: \"{certificate}\", key_file: \"{key}\" }}\nallow_non_tls: true\n"
    ))
}
