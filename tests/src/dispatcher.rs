//! Starts the dispatcher's program with the permissions that `deploy/` grants it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::timeout;

use crate::doctor::Report;
use crate::helper::{Helper, Program};
use crate::kubernetes::Namespace;
use crate::nats::Nats;
use crate::templates::without_limit;
use crate::wait::{TIMEOUT, try_until, until};
use crate::{paths, ports};

/// The number of log lines in the message of a failure.
const LOG_LINES: usize = 30;
/// How long the admin server may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Configures a dispatcher before its start.
#[derive(Debug)]
pub struct Builder {
    env: Vec<(String, String)>,
    args: Vec<String>,
    program: Option<PathBuf>,
    templates: Option<PathBuf>,
    sleep_seconds: String,
    wait: bool,
}

impl Builder {
    /// Sets how long a `simple` Job sleeps; default `"1"`.
    #[must_use]
    pub fn sleep_seconds(mut self, seconds: &str) -> Self {
        seconds.clone_into(&mut self.sleep_seconds);
        self
    }

    /// Uses the templates of this folder, unchanged, instead of `deploy/templates`.
    #[must_use]
    pub fn templates(mut self, folder: impl Into<PathBuf>) -> Self {
        self.templates = Some(folder.into());
        self
    }

    /// Adds or replaces an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Appends an argument after `run`.
    #[must_use]
    pub fn arg(mut self, argument: &str) -> Self {
        self.args.push(argument.to_owned());
        self
    }

    /// Starts another program, such as an older version.
    #[must_use]
    pub fn program(mut self, path: impl Into<PathBuf>) -> Self {
        self.program = Some(path.into());
        self
    }

    /// Does not wait for readiness.
    #[must_use]
    pub fn without_waiting(mut self) -> Self {
        self.wait = false;
        self
    }

    /// Runs `dispatcher doctor` with the same settings, to its end.
    ///
    /// # Panics
    /// If it does not end, or does not print a report.
    pub async fn doctor(self) -> Report {
        let folder = paths::temp_dir("doctor").expect("a folder");
        let templates = self.templates_in(folder.path()).expect("the templates are copied");
        let path = self.program.map_or_else(|| paths::built("dispatcher"), Ok).expect("the program is built");
        let mut command = Command::new(path);
        command.arg("doctor").args(["--output", "json"]).args(self.args);
        command.env("DISPATCHER_TEMPLATES", templates).envs(self.env).kill_on_drop(true);
        let output = timeout(TIMEOUT, command.output()).await.expect("the doctor ends").expect("it starts");
        Report::of(&output)
    }

    /// The folder of the templates; a copy of the shipped ones in `folder` by default.
    fn templates_in(&self, folder: &Path) -> Result<PathBuf, String> {
        match &self.templates {
            Some(templates) => Ok(templates.clone()),
            None => copy_templates(&folder.join("templates"), &self.sleep_seconds),
        }
    }

    /// Starts it and waits until it is ready.
    ///
    /// # Panics
    /// If it does not get ready in time; prints the last answer of `/readyz` and the end of the
    /// log.
    pub async fn start(self) -> Dispatcher {
        self.try_start().await.unwrap_or_else(|error| panic!("dispatcher: {error}"))
    }

    /// Like [`Builder::start`], with an error instead of a panic.
    pub async fn try_start(self) -> Result<Dispatcher, String> {
        let folder = paths::temp_dir("dispatcher")?;
        let templates = self.templates_in(folder.path())?;
        let admin = format!("127.0.0.1:{}", ports::free());
        let log = folder.path().join("dispatcher.log");
        let set = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        // Like a pod's name: it stays the same after a restart, and no other dispatcher has it.
        let pod = format!("dispatcher-{}", admin.rsplit(':').next().unwrap_or_default());
        let mut env = vec![
            set("DISPATCHER_ADMIN_ADDR", &admin),
            set("DISPATCHER_TEMPLATES", &templates.display().to_string()),
            set("POD_NAME", &pod),
        ];
        env.extend(self.env);
        let args = ["run".to_owned()].into_iter().chain(self.args).collect();
        let path = self.program.map_or_else(|| paths::built("dispatcher"), Ok)?;
        let program = Program {
            name: "dispatcher".to_owned(),
            path,
            args,
            env,
            log: log.clone(),
            folder: Some(folder.path().to_owned()),
        };
        let program = serde_json::to_string(&program).expect("the program serializes");
        let (helper, _) = Helper::start(&["run", &program], &[], TIMEOUT).await?;
        let admin_url = format!("http://{admin}");
        let dispatcher = Dispatcher { admin_url, pod, helper, log, _folder: folder };
        if self.wait {
            dispatcher.until_ready().await?;
        }
        Ok(dispatcher)
    }
}

/// A running dispatcher; it is killed when this is dropped.
#[derive(Debug)]
pub struct Dispatcher {
    /// The base URL of `/livez`, `/readyz` and `/leader`.
    pub admin_url: String,
    /// Its identity in the Lease.
    pub pod: String,
    helper: Helper,
    log: PathBuf,
    _folder: tempfile::TempDir,
}

impl Dispatcher {
    /// Builds a dispatcher for this NATS and this namespace.
    #[must_use]
    pub fn builder(nats: &Nats, namespace: &Namespace) -> Builder {
        let kubeconfig = namespace.dispatcher_kubeconfig.display().to_string();
        Self::builder_with(&nats.url, &kubeconfig, &namespace.name)
    }

    /// Builds a dispatcher for any addresses, such as those of a proxy.
    #[must_use]
    pub fn builder_with(nats_url: &str, kubeconfig: &str, namespace: &str) -> Builder {
        let settings = [
            ("NATS_URL", nats_url),
            ("KUBECONFIG", kubeconfig),
            ("DISPATCHER_NAMESPACE", namespace),
            ("DISPATCHER_LOG_FORMAT", "json"),
            ("RUST_LOG", "info,dispatcher=debug"),
        ];
        let env = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        Builder {
            env,
            args: vec![],
            program: None,
            templates: None,
            sleep_seconds: "1".to_owned(),
            wait: true,
        }
    }

    /// Waits until `/readyz` answers 200 and, in the leader, until it is synced.
    pub async fn until_ready(&self) -> Result<(), String> {
        self.ready_within(TIMEOUT).await
    }

    async fn ready_within(&self, deadline: Duration) -> Result<(), String> {
        let ready = try_until("the dispatcher to be ready", deadline, || async {
            let ended = self.helper.call("ended").await.map_err(Plain)?;
            if ended.get("code").is_some() {
                return Ok(Err(format!("it exited: {ended}")));
            }
            match self.get("/readyz").await {
                Ok((200, _)) if self.is_syncing().await => Err(Plain("not synced".to_owned())),
                Ok((200, _)) => Ok(Ok(())),
                Ok((status, body)) => Err(Plain(format!("{status}: {body}"))),
                Err(error) => Err(Plain(error)),
            }
        });
        match ready.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) | Err(error) => Err(format!("{error}\n{}", paths::tail(&self.log, LOG_LINES))),
        }
    }

    /// Whether it is the leader and not synced yet. Older versions do not tell.
    async fn is_syncing(&self) -> bool {
        let leader = self.get("/leader").await.unwrap_or_default().1;
        leader.contains("\"leader\":true") && leader.contains("\"synced\":false")
    }

    /// Sends a GET to the admin server; returns the status and the body.
    pub async fn get(&self, path: &str) -> Result<(u16, String), String> {
        let answer = timeout(ANSWER_TIMEOUT, get(self.admin_url.trim_start_matches("http://"), path)).await;
        let answer = answer.map_err(|_| format!("GET {path}: timed out after {ANSWER_TIMEOUT:?}"))?;
        answer.map_err(|error| error.to_string())
    }

    /// The process id.
    pub async fn pid(&self) -> u32 {
        let pid = self.helper.must("pid").await["pid"].as_u64();
        pid.and_then(|pid| u32::try_from(pid).ok()).expect("a pid")
    }

    /// Kills it (SIGKILL), as the loss of a node does.
    pub async fn kill(&self) {
        self.helper.must("kill").await;
    }

    /// Sends SIGTERM and waits for the exit; the exit code, unless a signal ended it.
    pub async fn terminate(&self) -> Option<i32> {
        self.helper.must("term").await;
        self.wait().await
    }

    /// Waits for the exit; the exit code, unless a signal ended it.
    pub async fn wait(&self) -> Option<i32> {
        let ending = self.helper.call("wait").await;
        let ending = ending.unwrap_or_else(|error| panic!("{error}\n{}", paths::tail(&self.log, LOG_LINES)));
        ending["code"].as_i64().and_then(|code| i32::try_from(code).ok())
    }

    /// Freezes it (SIGSTOP), like a long pause of its machine.
    pub async fn freeze(&self) {
        self.helper.must("stop").await;
    }

    /// Resumes it after a freeze (SIGCONT).
    pub async fn resume(&self) {
        self.helper.must("cont").await;
    }

    /// Starts it again after its exit, with the same settings, and waits until it is ready.
    pub async fn restart(&self) {
        self.helper.must("start").await;
        self.until_ready().await.unwrap_or_else(|error| panic!("restarted dispatcher: {error}"));
    }

    /// Starts it again after its exit, without waiting.
    ///
    /// # Errors
    /// If it is running.
    pub async fn start_again(&self) -> Result<(), String> {
        self.helper.call("start").await.map(drop)
    }

    /// Restarts it whenever it exits, as a kubelet does, until it is ready.
    pub async fn keep_running(&self) {
        until("the restarted dispatcher to be ready", TIMEOUT, || async {
            // An error if it is running.
            let _ = self.helper.call("start").await;
            // A short deadline, so that the final error contains the reason.
            self.ready_within(TIMEOUT / 8).await.map_err(Plain)
        })
        .await;
    }

    /// Everything that it logged, over all restarts.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The last lines that it logged.
    #[must_use]
    pub fn log_end(&self) -> String {
        paths::tail(&self.log, LOG_LINES)
    }
}

impl Drop for Dispatcher {
    fn drop(&mut self) {
        // The test harness shows it only if the test fails.
        if std::thread::panicking() {
            println!("end of the dispatcher's log:\n{}", self.log_end());
        }
    }
}

/// A text whose `Debug` has no quotes.
struct Plain(String);

impl std::fmt::Debug for Plain {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Sends a GET; returns the status and the body.
pub async fn get(address: &str, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address).await?;
    // HTTP 1.0, because the body of a 1.1 answer may be chunked.
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| std::io::Error::other(format!("not an HTTP answer: {answer:?}")))?;
    let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    Ok((status, body.to_owned()))
}

/// Copies the shipped templates, changes their sleep and removes their concurrency limits.
fn copy_templates(to: &Path, sleep_seconds: &str) -> Result<PathBuf, String> {
    let from = paths::workspace().join("deploy/templates");
    let failed = |error: std::io::Error| format!("templates of {}: {error}", from.display());
    std::fs::create_dir_all(to).map_err(failed)?;
    for entry in std::fs::read_dir(&from).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_type().map_err(failed)?.is_file() {
            let text = std::fs::read_to_string(entry.path()).map_err(failed)?;
            std::fs::write(to.join(entry.file_name()), without_limit(&with_sleep(&text, sleep_seconds)))
                .map_err(failed)?;
        }
    }
    Ok(to.to_owned())
}

/// Replaces the value `15` of `SLEEP_SECONDS`, on the line of the name or the next one.
fn with_sleep(template: &str, seconds: &str) -> String {
    let mut lines: Vec<String> = template.lines().map(str::to_owned).collect();
    let name = lines.iter().position(|line| line.contains("SLEEP_SECONDS"));
    for line in name.map(|name| lines.iter_mut().skip(name).take(2)).into_iter().flatten() {
        *line = line.replace("\"15\"", &format!("\"{seconds}\""));
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::with_sleep;

    #[test]
    fn only_the_sleep_of_a_template_is_replaced() {
        let template = "a: \"15\"\n- name: SLEEP_SECONDS\n  value: \"15\"\nb: \"15\"\n";
        assert_eq!(
            with_sleep(template, "0.5"),
            "a: \"15\"\n- name: SLEEP_SECONDS\n  value: \"0.5\"\nb: \"15\"\n"
        );
        let one_line = "- {name: SLEEP_SECONDS, value: \"15\"}\n";
        assert_eq!(with_sleep(one_line, "2"), "- {name: SLEEP_SECONDS, value: \"2\"}\n");
    }
}
