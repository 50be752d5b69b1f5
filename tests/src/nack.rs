//! Runs NACK, the controller that manages `JetStream` by Kubernetes resources.

use std::path::{Path, PathBuf};

use crate::helper::{Helper, Program};
use crate::wait::TIMEOUT;
use crate::{paths, ports};

/// The mode of NACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Its default, which NACK calls legacy.
    Default,
    /// `--control-loop`: NACK reverts changes that others make.
    ControlLoop,
}

/// A running NACK; it ends when this is dropped.
#[derive(Debug)]
pub struct Nack {
    _helper: Helper,
    log: PathBuf,
    _folder: tempfile::TempDir,
}

impl Nack {
    /// Starts NACK for all namespaces of a cluster and one NATS.
    ///
    /// # Errors
    /// If this machine has no NACK, or it does not start.
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
        let program = serde_json::to_string(&program).expect("the program serializes");
        let (helper, _) = Helper::start(&["run", &program], &[], TIMEOUT).await?;
        Ok(Self { _helper: helper, log, _folder: folder })
    }
}

impl Drop for Nack {
    fn drop(&mut self) {
        // The test harness shows it only if the test fails.
        if std::thread::panicking() {
            println!("end of NACK's log:\n{}", paths::tail(&self.log, 30));
        }
    }
}
