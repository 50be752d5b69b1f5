//! Ends processes, and removes their folder, when this process ends without a chance to do so itself, as by SIGKILL. The
//! kubelet has one for its containers; whoever starts other processes beside a cluster may have one too.
//!
//! What has started and was not told of yet, a moment at each start, it does not know.
//!
//! A small shell waits beside us for the end of its input, which the kernel brings about when we are gone.

use std::{
    fs::File,
    io::{self, Write},
    path::Path,
    process::Stdio,
    sync::Arc,
};

use rustix::process::Pid;
use tokio::{net::unix::pipe, process::Command};

/// `+ 12` is a group to kill at the end, `- 12` one that is gone.
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

/// A handle of it. It ends with the last one.
#[derive(Clone, Debug)]
pub struct Guard(Arc<File>);

impl Guard {
    /// Starts the shell, which removes `folder` in the end. Call it within a Tokio runtime.
    ///
    /// # Errors
    /// Where there can be no pipe, or no `/bin/sh`.
    pub fn start(folder: &Path) -> io::Result<Self> {
        let (sender, receiver) = pipe::pipe()?;
        // Nobody waits for it: the runtime takes care of what it leaves when it ends.
        Command::new("/bin/sh")
            .args(["-c", SCRIPT, "guard"])
            .arg(folder)
            .stdin(Stdio::from(receiver.into_blocking_fd()?))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Out of reach of a Ctrl-C at the terminal.
            .process_group(0)
            .spawn()?;
        Ok(Self(Arc::new(sender.into_nonblocking_fd()?.into())))
    }

    /// Has this process group killed if we end.
    pub fn watch(&self, group: Pid) {
        self.send('+', group);
    }

    /// This group is gone.
    pub fn forget(&self, group: Pid) {
        self.send('-', group);
    }

    /// Not by way of a task: a process that has started must be known at once. What the pipe has taken is read even when
    /// we are gone, and it has room for thousands of lines, each of which it takes whole or not at all. Nor by way of the
    /// runtime, which writes nothing before it has learnt that the pipe has room: on a busy machine that is after the first
    /// process.
    fn send(&self, what: char, group: Pid) {
        let line = format!("{what} {}\n", group.as_raw_pid());
        if let Err(error) = (&*self.0).write_all(line.as_bytes()) {
            tracing::warn!(%error, "the guard of the processes does not listen: they may outlive a SIGKILL");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::process::ExitStatusExt, time::Duration};

    use tokio::time::timeout;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(240);

    /// Within one turn of the runtime, as on a busy machine.
    #[tokio::test]
    async fn a_process_is_ended_that_was_started_right_after_the_guard() {
        let folder = tempfile::tempdir().unwrap();
        let guard = Guard::start(&folder.path().join("none")).unwrap();
        let mut command = Command::new("sleep");
        command.arg("1000").process_group(0).kill_on_drop(true).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        guard.watch(Pid::from_raw(child.id().unwrap().try_into().unwrap()).unwrap());
        drop(guard);
        let ended = timeout(TIMEOUT, child.wait()).await.expect("it is ended");
        assert_eq!(ended.unwrap().signal(), Some(9));
    }
}
