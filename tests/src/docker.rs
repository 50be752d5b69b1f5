//! A container engine: the one that runs here, else one of the testbed's own for this test process.

use std::os::unix::net::UnixStream;

use tokio::sync::OnceCell;

use crate::helper::Helper;
use crate::wait::TIMEOUT;

const DEFAULT: &str = "unix:///var/run/docker.sock";

/// Where an engine listens.
#[derive(Debug)]
pub struct Docker {
    /// The value for `DOCKER_HOST`.
    pub host: String,
    /// Whether it is the testbed's own, which holds no images but those that the testbed gave it.
    pub ours: bool,
    _helper: Option<Helper>,
}

/// The address of an engine that runs here already.
#[must_use]
pub fn running() -> Option<String> {
    match std::env::var("DOCKER_HOST") {
        Ok(host) if !host.is_empty() => Some(host),
        _ => UnixStream::connect("/var/run/docker.sock").is_ok().then(|| DEFAULT.to_owned()),
    }
}

impl Docker {
    /// The engine of this test process, started at the first call where none runs.
    ///
    /// # Errors
    /// Says why there can be none on this machine.
    pub async fn shared() -> Result<&'static Self, String> {
        static SHARED: OnceCell<Result<Docker, String>> = OnceCell::const_new();
        let start = || async {
            if let Some(host) = running() {
                return Ok(Self { host, ours: false, _helper: None });
            }
            let (helper, ready) = Helper::start(&["docker"], &[], TIMEOUT).await?;
            let host = ready["host"].as_str().ok_or("no host in the answer")?.to_owned();
            Ok(Self { host, ours: true, _helper: Some(helper) })
        };
        SHARED.get_or_init(start).await.as_ref().map_err(Clone::clone)
    }
}
