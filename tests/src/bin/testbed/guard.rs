//! The outer process of a helper that runs containers. It puts the inner process into a PID and a
//! mount namespace. When that has ended, and with it everything that ran or was mounted, it deletes
//! the folder, the control groups and the bridge.

use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use dispatcher_tests::{docker as engine, paths};
use serde_json::{Value, json};
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
    let inner = groups
        .and_then(|()| inside("kubernetes-inside", &[folder.path().as_os_str(), options.as_ref()], false));
    let code = match inner {
        Ok(inner) => relay(inner).await,
        Err(error) => fail(&error),
    };
    leftovers::remove(folder.path()).await;
    code
}

/// `testbed docker`. A command runs with `DOCKER_HOST` set, even if the engine is the machine's.
pub(crate) async fn docker(command: Option<&[&str]>) -> ExitCode {
    if let (Some(command), Some(host)) = (command, engine::running()) {
        return with_engine(command, &host).await;
    }
    if !rustix::process::geteuid().is_root() {
        return fail("no container engine is running, and only root can start one");
    }
    let (folder, _lock) = match leftovers::new_folder("docker").await {
        Ok(made) => made,
        Err(error) => return fail(&error),
    };
    let code = docker_in(folder.path(), command).await;
    leftovers::remove(folder.path()).await;
    code
}

async fn docker_in(folder: &Path, command: Option<&[&str]>) -> ExitCode {
    let bridge = match docker::create_bridge(folder).await {
        Ok(bridge) => bridge,
        Err(error) => return fail(&error),
    };
    let args = [folder.as_os_str(), bridge.as_ref()];
    let mut inner = match inside("docker-inside", &args, command.is_some()) {
        Ok(inner) => inner,
        Err(error) => return fail(&error),
    };
    let Some(command) = command else { return relay(inner).await };
    let mut line = String::new();
    if let Some(stdout) = inner.stdout.take() {
        let _ = BufReader::new(stdout).read_line(&mut line).await;
    }
    let ready: Value = serde_json::from_str(&line).unwrap_or_default();
    let code = if let Some(host) = ready["host"].as_str() {
        with_engine(command, host).await
    } else {
        eprintln!("testbed: start a container engine: {}", ready["error"].as_str().unwrap_or(&line));
        ExitCode::FAILURE
    };
    end(inner).await;
    code
}

async fn with_engine(command: &[&str], host: &str) -> ExitCode {
    let [program, args @ ..] = command else { return fail("no command") };
    match Command::new(program).args(args).env("DOCKER_HOST", host).status().await {
        Ok(status) => ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)),
        Err(error) => fail(&format!("{program}: {error}")),
    }
}

/// Starts the inner process; as root, in new namespaces.
fn inside(verb: &str, args: &[&std::ffi::OsStr], read: bool) -> Result<Child, String> {
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
    if read {
        command.stdout(Stdio::piped());
    }
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
