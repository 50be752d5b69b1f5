//! The init process of a PID namespace: reaps orphans until its only child exits. When it exits,
//! the kernel kills everything in the namespace, so no container outlives it.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode, ExitStatus};

use rustix::process::{Pid, WaitOptions, wait};

/// Folders that all container runtimes of a machine share; no configuration changes them.
const SHARED: [&str; 5] =
    ["/run/containerd", "/run/netns", "/var/lib/cni", "/var/lib/kubelet", "/var/log/containers"];

/// Runs the program as the only child and returns its exit code.
pub(crate) fn run(program: &str, args: &[&str]) -> ExitCode {
    for folder in SHARED {
        let made = std::fs::create_dir_all(folder);
        let mount = Command::new("mount").args(["-t", "tmpfs", "tmpfs", folder]).status();
        if made.is_err() || !mount.is_ok_and(|status| status.success()) {
            eprintln!("testbed: cannot mount a file system on {folder}");
        }
    }
    let child = match Command::new(program).args(args).spawn() {
        Ok(child) => child.id(),
        Err(error) => {
            eprintln!("testbed: {program}: {error}");
            return ExitCode::FAILURE;
        }
    };
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if Pid::as_raw(Some(pid)) as u32 == child => {
                let code = ExitStatus::from_raw(status.as_raw()).code();
                return ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1));
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return ExitCode::FAILURE,
        }
    }
}
