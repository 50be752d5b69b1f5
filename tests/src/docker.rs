//! A container engine: the machine's, or one that the testbed starts for this test process.

use std::os::unix::net::UnixStream;

use tokio::sync::OnceCell;

use crate::helper::Helper;
use crate::wait::TIMEOUT;

const DEFAULT: &str = "unix:///var/run/docker.sock";

/// The address of an engine.
#[derive(Debug)]
pub struct Docker {
    /// The value for `DOCKER_HOST`.
    pub host: String,
    /// Whether the testbed started it. Then it has only the images that the testbed loads.
    pub own: bool,
    _helper: Option<Helper>,
}

/// The address of a running engine of the machine.
fn running() -> Option<String> {
    match std::env::var("DOCKER_HOST") {
        Ok(host) if !host.is_empty() => Some(host),
        _ => UnixStream::connect("/var/run/docker.sock").is_ok().then(|| DEFAULT.to_owned()),
    }
}

impl Docker {
    /// The engine of this test process. If no engine is running, the first call starts one.
    ///
    /// # Errors
    /// If this machine cannot run one.
    pub async fn shared() -> Result<&'static Self, String> {
        static SHARED: OnceCell<Result<Docker, String>> = OnceCell::const_new();
        let start = || async {
            if let Some(host) = running() {
                return Ok(Self { host, own: false, _helper: None });
            }
            let (helper, ready) = Helper::start(&["docker"], &[], TIMEOUT).await?;
            let host = ready["host"].as_str().ok_or("the answer has no host")?.to_owned();
            Ok(Self { host, own: true, _helper: Some(helper) })
        };
        SHARED.get_or_init(start).await.as_ref().map_err(Clone::clone)
    }
}
