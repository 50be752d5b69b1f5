//! Runs Kueue, the controller that decides when Jobs run.
//!
//! Its webhooks are those of its release: they concern all namespaces, and the API server refuses a
//! Job while Kueue is away. So tests with Kueue share no cluster with others.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::helper::{Helper, Program};
use crate::wait::{TIMEOUT, try_until};
use crate::{Kubernetes, paths, ports};

/// Masks `/etc` by its first argument, since the folder of a certificate is fixed, and runs the rest.
/// Only this process sees it.
const WITH_ETC: &str = r#"mount --bind "$0" /etc && exec "$@""#;

/// A running Kueue; it ends when this is dropped.
#[derive(Debug)]
pub struct Kueue {
    _helper: Helper,
    log: PathBuf,
    folder: tempfile::TempDir,
}

impl Kueue {
    /// Checks that this machine can run Kueue.
    ///
    /// # Errors
    /// Names the missing file or program.
    pub fn available() -> Result<(), String> {
        for name in ["kueue", "crds", "webhooks.yaml"] {
            paths::kueue(name)?;
        }
        ["openssl", "unshare"].iter().try_for_each(|name| paths::program(name).map(drop))
    }

    /// Installs Kueue and starts it.
    ///
    /// # Errors
    /// If this machine has no Kueue, or it does not start.
    pub async fn start(kubernetes: &Kubernetes) -> Result<Self, String> {
        kubernetes.create_crds(&paths::kueue("crds")?).await?;
        kubernetes.kubectl(&["create", "namespace", "kueue-system"]).await?;
        let folder = paths::temp_dir("kueue")?;
        let certificates = folder.path().join("etc/kueue/metrics/certs");
        let authority = certificate(&certificates).await?;
        let (webhooks, health) = (ports::free(), ports::free());
        let config = folder.path().join("config.yaml");
        write(&config, &configuration(&certificates, webhooks, health))?;
        let log = folder.path().join("kueue.log");
        let args = [
            "--mount".to_owned(),
            "sh".to_owned(),
            "-c".to_owned(),
            WITH_ETC.to_owned(),
            folder.path().join("etc").display().to_string(),
            paths::kueue("kueue")?.display().to_string(),
            format!("--config={}", config.display()),
            format!("--kubeconfig={}", kubernetes.kubeconfig_path().display()),
        ];
        let program = Program {
            name: "kueue".to_owned(),
            path: paths::program("unshare")?,
            args: args.into(),
            env: vec![],
            log: log.clone(),
            folder: Some(folder.path().to_owned()),
        };
        let program = serde_json::to_string(&program).expect("the program serializes");
        let (helper, _) = Helper::start(&["run", &program], &[], TIMEOUT).await?;
        let kueue = Self { _helper: helper, log, folder };
        let listens =
            try_until("the webhooks of Kueue", TIMEOUT, || TcpStream::connect(("127.0.0.1", webhooks)));
        listens.await.map_err(|error| format!("{error}\n{}", kueue.tail()))?;
        let objects = kueue.folder.path().join("webhooks.json");
        write(&objects, &webhook_configurations(&authority, webhooks)?)?;
        kubernetes.kubectl(&["apply", "--server-side", "-f", &objects.display().to_string()]).await?;
        Ok(kueue)
    }

    /// The end of its log, for the message of a failure.
    #[must_use]
    pub fn tail(&self) -> String {
        paths::tail(&self.log, 30)
    }
}

/// The configuration: Jobs only, no leader election, no server besides the webhooks.
fn configuration(certificates: &Path, webhooks: u16, health: u16) -> Value {
    json!({
        "apiVersion": "config.kueue.x-k8s.io/v1beta2", "kind": "Configuration",
        "namespace": "kueue-system",
        "health": {"healthProbeBindAddress": format!("127.0.0.1:{health}")},
        "metrics": {"bindAddress": "0"},
        "webhook": {"host": "127.0.0.1", "port": webhooks, "certDir": certificates},
        "leaderElection": {"leaderElect": false},
        "internalCertManagement": {"enable": false},
        "featureGates": {"VisibilityOnDemand": false},
        "integrations": {"frameworks": ["batch/job"]},
    })
}

/// The webhooks of Kueue, reached at a port of this machine.
fn webhook_configurations(authority: &str, port: u16) -> Result<Value, String> {
    let path = paths::kueue("webhooks.yaml")?;
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let text = std::fs::read_to_string(&path).map_err(|error| failed(&error))?;
    let mut objects: Vec<Value> = serde_saphyr::from_multiple(&text).map_err(|error| failed(&error))?;
    for webhook in objects.iter_mut().filter_map(|object| object["webhooks"].as_array_mut()).flatten() {
        let path = webhook["clientConfig"]["service"]["path"].as_str().unwrap_or_default();
        let url = format!("https://127.0.0.1:{port}{path}");
        webhook["clientConfig"] = json!({"url": url, "caBundle": authority});
    }
    Ok(json!({"apiVersion": "v1", "kind": "List", "items": objects}))
}

/// Writes a certificate for this machine and its key. Returns the certificate in base64, which signs
/// itself.
async fn certificate(folder: &Path) -> Result<String, String> {
    std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let (key, certificate) = (folder.join("tls.key"), folder.join("tls.crt"));
    let mut command = Command::new(paths::program("openssl")?);
    command.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]);
    command.args(["-addext", "subjectAltName=IP:127.0.0.1"]);
    command.arg("-keyout").arg(&key).arg("-out").arg(&certificate);
    let output = command.stdin(Stdio::null()).output().await.map_err(|error| format!("openssl: {error}"))?;
    if !output.status.success() {
        return Err(format!("openssl: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let text = std::fs::read(&certificate).map_err(|error| format!("{}: {error}", certificate.display()))?;
    Ok(STANDARD.encode(text))
}

fn write(path: &Path, value: &Value) -> Result<(), String> {
    std::fs::write(path, value.to_string()).map_err(|error| format!("{}: {error}", path.display()))
}
