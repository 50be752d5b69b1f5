//! The client of a `testbed` process: sends commands as lines, and gets a JSON object for each.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::paths;
use crate::wait::TIMEOUT;

/// How long a helper may take to end its children.
const EXIT_TIMEOUT: Duration = Duration::from_secs(30);

/// A program for `testbed run`, passed as JSON.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Program {
    /// The name in commands and errors.
    pub name: String,
    /// The executable.
    pub path: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Additional environment variables.
    pub env: Vec<(String, String)>,
    /// The file that stdout and stderr are appended to.
    pub log: PathBuf,
    /// A folder to delete at the end, even if the test process is killed.
    pub folder: Option<PathBuf>,
}

/// A running helper. It ends its children when this is dropped or this process dies.
///
/// It uses blocking pipes and threads because tests with different runtimes share it.
#[derive(Debug)]
pub struct Helper {
    pipe: Arc<Mutex<Pipe>>,
}

#[derive(Debug)]
struct Pipe {
    child: Child,
    stdin: Option<ChildStdin>,
    answers: Receiver<String>,
}

impl Helper {
    /// Starts `testbed` with these arguments and waits for its first line: ready, or an error.
    pub async fn start(
        args: &[&str],
        env: &[(&str, &str)],
        deadline: Duration,
    ) -> Result<(Self, Value), String> {
        let mut command = Command::new(paths::built("testbed")?);
        command.args(args).envs(env.iter().copied());
        // A new process group, so that ^C reaches only the test; its end then ends the helper.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        let mut child = command.spawn().map_err(|error| format!("testbed: {error}"))?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().expect("stdout is piped");
        let (sender, answers) = channel();
        thread::spawn(move || {
            BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        let helper = Self { pipe: Arc::new(Mutex::new(Pipe { child, stdin, answers })) };
        let ready = helper.with_pipe(move |pipe| pipe.answer(deadline)).await?;
        Ok((helper, ready))
    }

    /// Sends a command and waits for the answer.
    pub async fn call(&self, command: &str) -> Result<Value, String> {
        let line = format!("{command}\n");
        self.with_pipe(move |pipe| {
            let stdin = pipe.stdin.as_mut().expect("stdin is open until the drop");
            stdin.write_all(line.as_bytes()).map_err(|error| format!("testbed helper: {error}"))?;
            pipe.answer(TIMEOUT)
        })
        .await
    }

    /// Like [`Helper::call`], for commands that fail only if the testbed is broken.
    pub async fn must(&self, command: &str) -> Value {
        self.call(command).await.unwrap_or_else(|error| panic!("`{command}`: {error}"))
    }

    /// The process id of the helper.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.pipe.lock().unwrap_or_else(PoisonError::into_inner).child.id()
    }

    async fn with_pipe<T: Send + 'static>(&self, work: impl FnOnce(&mut Pipe) -> T + Send + 'static) -> T {
        let pipe = self.pipe.clone();
        let work = move || work(&mut pipe.lock().unwrap_or_else(PoisonError::into_inner));
        tokio::task::spawn_blocking(work).await.expect("the closure does not panic")
    }
}

impl Pipe {
    fn answer(&mut self, deadline: Duration) -> Result<Value, String> {
        let line = self.answers.recv_timeout(deadline);
        let line = line.map_err(|error| format!("testbed helper: no answer within {deadline:?}: {error}"))?;
        let value: Value = serde_json::from_str(&line).map_err(|error| format!("{line:?}: {error}"))?;
        match value.get("error").and_then(Value::as_str) {
            Some(error) => Err(error.to_owned()),
            None => Ok(value),
        }
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let end = Instant::now() + EXIT_TIMEOUT;
        while let Ok(None) = self.child.try_wait() {
            if Instant::now() > end {
                let _ = writeln!(std::io::stderr(), "testbed helper {} does not exit", self.child.id());
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}
