//! The outer process of a helper that runs containers. It puts the inner process into a PID and a
//! mount namespace. When that has ended, and with it everything that ran or was mounted, it deletes
//! the folder, the control groups and the bridge.

use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use dispatcher_tests::paths;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

use crate::commands::print_line;
use crate::{control_groups, docker, leftovers};

/// How long the inner process may take to end; then the kernel kills everything.
const END: Duration = Duration::from_secs(15);

/// `testbed kubernetes`.
pub(crate) async fn kubernetes(options: &str) -> ExitCode {
    let (folder, _lock) = match leftovers::new_folder("kubernetes").await {
        Ok(made) => made,
        Err(error) => return fail(&error),
    };
    let groups = match rustix::process::geteuid().is_root() {
        true => control_groups::make(folder.path()),
        false => Ok(()),
    };
    let inner =
        groups.and_then(|()| inside("kubernetes-inside", &[folder.path().as_os_str(), options.as_ref()]));
    let code = match inner {
        Ok(inner) => relay(inner).await,
        Err(error) => fail(&error),
    };
    leftovers::remove(folder.path()).await;
    code
}

/// `testbed docker`.
pub(crate) async fn docker() -> ExitCode {
    if !rustix::process::geteuid().is_root() {
        return fail("no container engine is running, and only root can start one");
    }
    let (folder, _lock) = match leftovers::new_folder("docker").await {
        Ok(made) => made,
        Err(error) => return fail(&error),
    };
    let code = docker_in(folder.path()).await;
    leftovers::remove(folder.path()).await;
    code
}

async fn docker_in(folder: &Path) -> ExitCode {
    let bridge = match docker::create_bridge(folder).await {
        Ok(bridge) => bridge,
        Err(error) => return fail(&error),
    };
    match inside("docker-inside", &[folder.as_os_str(), bridge.as_ref()]) {
        Ok(inner) => relay(inner).await,
        Err(error) => fail(&error),
    }
}

/// Starts the inner process; as root, in new namespaces.
fn inside(verb: &str, args: &[&std::ffi::OsStr]) -> Result<Child, String> {
    let own = std::env::current_exe().map_err(|error| format!("path of this program: {error}"))?;
    let mut command = match rustix::process::geteuid().is_root() {
        true => {
            let mut command = Command::new(paths::program("unshare")?);
            command.args(["--pid", "--mount", "--fork", "--kill-child", "--mount-proc", "--"]);
            command.arg(&own).arg("init").arg(&own);
            command
        }
        false => Command::new(&own),
    };
    command.arg(verb).args(args).process_group(0).stdin(Stdio::piped());
    command.spawn().map_err(|error| format!("testbed {verb}: {error}"))
}

/// Forwards stdin to the inner process until it closes, a signal arrives or the inner process ends.
async fn relay(mut inner: Child) -> ExitCode {
    let Some(mut to) = inner.stdin.take() else { return fail("the inner process has no stdin") };
    let ended = tokio::select! {
        () = copy(&mut to) => false,
        () = termination() => false,
        _ = inner.wait() => true,
    };
    drop(to);
    if !ended {
        end(inner).await;
    }
    ExitCode::from(u8::from(ended))
}

async fn copy(to: &mut ChildStdin) {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if to.write_all(format!("{line}\n").as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn end(mut inner: Child) {
    drop(inner.stdin.take());
    if timeout(END, inner.wait()).await.is_err() {
        let _ = inner.kill().await;
    }
}

/// Resolves on SIGTERM or SIGINT.
pub(crate) async fn termination() {
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! { _ = term.recv() => (), _ = int.recv() => () }
}

fn fail(error: &str) -> ExitCode {
    print_line(&json!({"error": error}));
    ExitCode::FAILURE
}
