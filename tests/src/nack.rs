//! A real NACK: the controller that keeps JetStream as resources of Kubernetes say.

use std::path::{Path, PathBuf};

use crate::helper::{Helper, Program};
use crate::wait::TIMEOUT;
use crate::{paths, ports};

/// In which of its two modes it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The one without a flag, which it calls legacy.
    Default,
    /// `--control-loop`: what was changed behind its back is changed back.
    ControlLoop,
}

/// A running one; it ends when this is dropped.
#[derive(Debug)]
pub struct Nack {
    _helper: Helper,
    log: PathBuf,
    _folder: tempfile::TempDir,
}

impl Nack {
    /// Starts one for all namespaces of a cluster and one NATS.
    ///
    /// # Errors
    /// Where there is none on this machine, or it does not start.
    pub async fn start(kubeconfig: &Path, nats_url: &str, mode: Mode) -> Result<Self, String> {
        let path = paths::nack("jetstream-controller")?;
        let folder = paths::temp_dir("nack")?;
        let log = folder.path().join("nack.log");
        let mut args = vec![
            format!("--kubeconfig={}", kubeconfig.display()),
            format!("-s={nats_url}"),
            format!("--health-probe-bind-address=127.0.0.1:{}", ports::free()),
            format!("--cache-dir={}", folder.path().join("cache").display()),
            "--sync-interval=1s".to_owned(),
        ];
        if mode == Mode::ControlLoop {
            args.push("--control-loop".to_owned());
        }
        let program = Program {
            name: "nack".to_owned(),
            path,
            args,
            env: vec![],
            log: log.clone(),
            folder: Some(folder.path().to_owned()),
        };
        let program = serde_json::to_string(&program).expect("plain data");
        let (helper, _) = Helper::start(&["run", &program], &[], TIMEOUT).await?;
        Ok(Self { _helper: helper, log, _folder: folder })
    }
}

impl Drop for Nack {
    fn drop(&mut self) {
        // Shown only where the test fails.
        if std::thread::panicking() {
            println!("NACK's last lines:\n{}", paths::tail(&self.log, 30));
        }
    }
}
