//! Kills process groups and removes their folder when this process ends, even by SIGKILL.
//!
//! A shell in its own process group waits for the end of its input, which the kernel closes when
//! this process ends. A process that starts is unprotected until [`Guard::watch`] returns.

use std::{
    fs::File,
    io::{self, Write},
    path::Path,
    process::Stdio,
    sync::Arc,
};

use rustix::process::Pid;
use tokio::{net::unix::pipe, process::Command};

/// `+ 12` adds process group 12, `- 12` removes it.
const SCRIPT: &str = r#"
trap '' HUP INT TERM
groups=' '
while read -r what group; do
    case $what in
        +) groups="$groups$group " ;;
        -) groups="${groups%% $group *} ${groups#* $group }" ;;
    esac
done
for group in $groups; do kill -s KILL -- "-$group"; done 2>/dev/null
rm -rf -- "$1"
"#;

/// A process guard. It kills the watched groups when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Guard(Arc<File>);

impl Guard {
    /// Starts the shell, which finally removes `folder`. It must be called in a Tokio runtime.
    ///
    /// # Errors
    /// If the pipe or `/bin/sh` cannot be created.
    pub fn start(folder: &Path) -> io::Result<Self> {
        let (sender, receiver) = pipe::pipe()?;
        // The child is not awaited: the runtime reaps it.
        Command::new("/bin/sh")
            .args(["-c", SCRIPT, "guard"])
            .arg(folder)
            .stdin(Stdio::from(receiver.into_blocking_fd()?))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // A Ctrl-C at the terminal does not reach this group.
            .process_group(0)
            .spawn()?;
        Ok(Self(Arc::new(sender.into_nonblocking_fd()?.into())))
    }

    /// Kills this process group after this process ends.
    pub fn watch(&self, group: Pid) {
        self.send('+', group);
    }

    /// Stops watching a process group that has ended.
    pub fn forget(&self, group: Pid) {
        self.send('-', group);
    }

    /// Writes synchronously, so that the shell knows a process before this function returns.
    ///
    /// The shell reads the pipe even after this process has ended. The pipe holds thousands of
    /// lines and accepts each one atomically. An asynchronous write could be delayed on a busy
    /// machine.
    fn send(&self, operation: char, group: Pid) {
        let line = format!("{operation} {}\n", group.as_raw_pid());
        if let Err(error) = (&*self.0).write_all(line.as_bytes()) {
            tracing::warn!(%error, "process guard unreachable; processes may outlive a SIGKILL");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::process::ExitStatusExt, time::Duration};

    use tokio::time::timeout;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(240);

    /// The test does not yield to the runtime between the start of the guard and of the process.
    #[tokio::test]
    async fn process_started_right_after_the_guard_is_killed() {
        let folder = tempfile::tempdir().unwrap();
        let guard = Guard::start(&folder.path().join("none")).unwrap();
        let mut command = Command::new("sleep");
        command.arg("1000").process_group(0).kill_on_drop(true).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        guard.watch(Pid::from_raw(child.id().unwrap().try_into().unwrap()).unwrap());
        drop(guard);
        let status = timeout(TIMEOUT, child.wait()).await.expect("the guard kills the process");
        assert_eq!(status.unwrap().signal(), Some(9));
    }
}
