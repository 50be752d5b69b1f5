//! Ends the containers' processes, and removes their folder, when this process ends without a chance to do so itself, as
//! by SIGKILL.
//!
//! A small shell waits beside us for the end of its input, which the kernel brings about when we are gone.

use std::{io, path::Path, process::Stdio};

use rustix::process::Pid;
use tokio::{
    io::AsyncWriteExt,
    process::{ChildStdin, Command},
    sync::mpsc,
};

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
/// Lines on their way to the shell. It reads faster than processes start.
const QUEUE: usize = 1024;

/// A handle of it.
#[derive(Clone)]
pub(super) struct Guard(mpsc::Sender<String>);

impl Guard {
    /// Starts the shell, which removes `folder` in the end. The future feeds it, and has to be run; it ends with the last
    /// handle.
    pub(super) fn start(folder: &Path) -> io::Result<(Self, impl Future<Output = ()> + Send + 'static)> {
        let mut shell = Command::new("/bin/sh")
            .args(["-c", SCRIPT, "guard"])
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Out of reach of a Ctrl-C at the terminal.
            .process_group(0)
            .spawn()?;
        let input = shell.stdin.take().ok_or_else(|| io::Error::other("the guard has no input"))?;
        let (sender, receiver) = mpsc::channel(QUEUE);
        Ok((Self(sender), async move {
            feed(input, receiver).await;
            // Its input is closed: it ends, after killing what is left.
            let _ = shell.wait().await;
        }))
    }

    /// Has this group killed if we end.
    pub(super) fn watch(&self, group: Pid) {
        self.tell('+', group);
    }

    /// This group is gone.
    pub(super) fn forget(&self, group: Pid) {
        self.tell('-', group);
    }

    fn tell(&self, what: char, group: Pid) {
        if self.0.try_send(format!("{what} {}\n", group.as_raw_pid())).is_err() {
            tracing::debug!("the guard of the processes does not listen");
        }
    }
}

async fn feed(mut input: ChildStdin, mut lines: mpsc::Receiver<String>) {
    while let Some(line) = lines.recv().await {
        if let Err(error) = input.write_all(line.as_bytes()).await {
            tracing::warn!(%error, "the guard of the processes is gone: they outlive a SIGKILL of this process");
            return;
        }
    }
}
