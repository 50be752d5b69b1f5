//! The dispatcher itself: the real program, under the rights that `deploy/` gives it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::helper::{Helper, Program};
use crate::kubernetes::Namespace;
use crate::nats::Nats;
use crate::wait::{TIMEOUT, try_until, until};
use crate::{paths, ports};

/// How many lines of its log the message of a failure holds.
const TAIL: usize = 30;
/// How long its admin address may take to answer.
const ANSWER: Duration = Duration::from_secs(30);

/// How a dispatcher is to be started.
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
    /// How long a simple Job sleeps, in place of the template's 15; `"1"` unless set.
    #[must_use]
    pub fn sleep_seconds(mut self, seconds: &str) -> Self {
        seconds.clone_into(&mut self.sleep_seconds);
        self
    }

    /// A folder of templates, taken as it is, in place of `deploy/templates`.
    #[must_use]
    pub fn templates(mut self, folder: impl Into<PathBuf>) -> Self {
        self.templates = Some(folder.into());
        self
    }

    /// A further variable of the environment, or another value for one that is set.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A further argument after `run`.
    #[must_use]
    pub fn arg(mut self, argument: &str) -> Self {
        self.args.push(argument.to_owned());
        self
    }

    /// Another program than the one built here: an older version, for one.
    #[must_use]
    pub fn program(mut self, path: impl Into<PathBuf>) -> Self {
        self.program = Some(path.into());
        self
    }

    /// Do not wait for readiness: for a start that is to fail, or to wait itself.
    #[must_use]
    pub fn without_waiting(mut self) -> Self {
        self.wait = false;
        self
    }

    /// Starts it and waits until it is ready.
    ///
    /// # Panics
    /// When it is not ready in time, with what `/readyz` said and the last lines of its log.
    pub async fn start(self) -> Dispatcher {
        self.try_start().await.unwrap_or_else(|error| panic!("the dispatcher: {error}"))
    }

    /// Like [`Builder::start`], with an error in place of a panic.
    pub async fn try_start(self) -> Result<Dispatcher, String> {
        let folder = paths::temp_dir("dispatcher")?;
        let templates = match self.templates {
            Some(templates) => templates,
            None => copy_templates(&folder.path().join("templates"), &self.sleep_seconds)?,
        };
        let admin = format!("127.0.0.1:{}", ports::free());
        let log = folder.path().join("dispatcher.log");
        let set = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        // As that of a pod: the same after a restart, and of no other.
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
        let program = serde_json::to_string(&program).expect("plain data");
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
    /// Where `/livez`, `/readyz` and the like are.
    pub admin_url: String,
    /// Its name in the Lease.
    pub pod: String,
    helper: Helper,
    log: PathBuf,
    _folder: tempfile::TempDir,
}

impl Dispatcher {
    /// A dispatcher for this NATS and this namespace, with the settings of the tests.
    #[must_use]
    pub fn builder(nats: &Nats, namespace: &Namespace) -> Builder {
        let kubeconfig = namespace.dispatcher_kubeconfig.display().to_string();
        Self::builder_with(&nats.url, &kubeconfig, &namespace.name)
    }

    /// A dispatcher for any addresses: those of a proxy, for one, or of nothing at all.
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

    /// Waits until `/readyz` answers 200.
    pub async fn until_ready(&self) -> Result<(), String> {
        self.ready_within(TIMEOUT).await
    }

    async fn ready_within(&self, deadline: Duration) -> Result<(), String> {
        let ready = try_until("/readyz to answer 200", deadline, || async {
            let ended = self.helper.call("ended").await.map_err(Seen)?;
            if ended.get("code").is_some() {
                return Ok(Err(format!("it ended: {ended}")));
            }
            match self.get("/readyz").await {
                Ok((200, _)) if self.compares().await => Err(Seen("it compares".to_owned())),
                Ok((200, _)) => Ok(Ok(())),
                Ok((status, body)) => Err(Seen(format!("{status}: {body}"))),
                Err(error) => Err(Seen(error)),
            }
        });
        match ready.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) | Err(error) => Err(format!("{error}\n{}", paths::tail(&self.log, TAIL))),
        }
    }

    /// Whether it has just become the one that reports, and still compares what was said with the Jobs. (An older version cannot
    /// tell.)
    async fn compares(&self) -> bool {
        let reports = self.get("/leader").await.unwrap_or_default().1;
        reports.contains("\"leader\":true") && reports.contains("\"synced\":false")
    }

    /// The status and body of a path on the admin address.
    pub async fn get(&self, path: &str) -> Result<(u16, String), String> {
        let answer = timeout(ANSWER, get(self.admin_url.trim_start_matches("http://"), path)).await;
        let answer = answer.map_err(|_| format!("no answer to GET {path} within {ANSWER:?}"))?;
        answer.map_err(|error| error.to_string())
    }

    /// Its process id, while it runs.
    pub async fn pid(&self) -> u32 {
        let pid = self.helper.must("pid").await["pid"].as_u64();
        pid.and_then(|pid| u32::try_from(pid).ok()).expect("a pid")
    }

    /// Kills it (SIGKILL), as a lost node would.
    pub async fn kill(&self) {
        self.helper.must("kill").await;
    }

    /// Asks it to end (SIGTERM) and waits for that; the exit code, if it was not ended by a signal.
    pub async fn terminate(&self) -> Option<i32> {
        self.helper.must("term").await;
        self.wait().await
    }

    /// Waits for its end; the exit code, if it was not ended by a signal.
    pub async fn wait(&self) -> Option<i32> {
        let ending = self.helper.call("wait").await;
        let ending = ending.unwrap_or_else(|error| panic!("{error}\n{}", paths::tail(&self.log, TAIL)));
        ending["code"].as_i64().and_then(|code| i32::try_from(code).ok())
    }

    /// Freezes it (SIGSTOP), like a long pause of its machine.
    pub async fn stop_signal(&self) {
        self.helper.must("stop").await;
    }

    /// Lets a frozen one go on (SIGCONT).
    pub async fn cont_signal(&self) {
        self.helper.must("cont").await;
    }

    /// Starts it again after its end, with the same settings, and waits until it is ready.
    pub async fn restart(&self) {
        self.helper.must("start").await;
        self.until_ready().await.unwrap_or_else(|error| panic!("the dispatcher, started again: {error}"));
    }

    /// The same as a kubelet does it: where it ends by itself, NATS being away for one, it is started once more.
    pub async fn keep_running(&self) {
        until("the dispatcher, kept running, to be ready", TIMEOUT, || async {
            // Refused where it runs.
            let _ = self.helper.call("start").await;
            // So that what is missing is told where it never gets ready.
            self.ready_within(TIMEOUT / 8).await.map_err(Seen)
        })
        .await;
    }

    /// All that it has logged, over restarts too.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }
}

impl Drop for Dispatcher {
    fn drop(&mut self) {
        // Shown only where the test fails.
        if std::thread::panicking() {
            println!("the dispatcher's last lines:\n{}", paths::tail(&self.log, TAIL));
        }
    }
}

/// A text shown as it is.
struct Seen(String);

impl std::fmt::Debug for Seen {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// The status and body of a path.
pub async fn get(address: &str, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address).await?;
    // 1.0: an answer in chunks could not be read as it is.
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| std::io::Error::other(format!("no HTTP status in {answer:?}")))?;
    let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    Ok((status, body.to_owned()))
}

/// Copies the shipped templates with another sleep.
fn copy_templates(to: &Path, sleep_seconds: &str) -> Result<PathBuf, String> {
    let from = paths::workspace().join("deploy/templates");
    let failed = |error: std::io::Error| format!("templates of {}: {error}", from.display());
    std::fs::create_dir_all(to).map_err(failed)?;
    for entry in std::fs::read_dir(&from).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_type().map_err(failed)?.is_file() {
            let text = std::fs::read_to_string(entry.path()).map_err(failed)?;
            std::fs::write(to.join(entry.file_name()), with_sleep(&text, sleep_seconds)).map_err(failed)?;
        }
    }
    Ok(to.to_owned())
}

/// A template with the value of `SLEEP_SECONDS`, `15`, replaced: on the line of the name or the one after it.
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
    fn only_the_sleep_is_replaced_in_a_template() {
        let template = "a: \"15\"\n- name: SLEEP_SECONDS\n  value: \"15\"\nb: \"15\"\n";
        assert_eq!(
            with_sleep(template, "0.5"),
            "a: \"15\"\n- name: SLEEP_SECONDS\n  value: \"0.5\"\nb: \"15\"\n"
        );
        let one_line = "- {name: SLEEP_SECONDS, value: \"15\"}\n";
        assert_eq!(with_sleep(one_line, "2"), "- {name: SLEEP_SECONDS, value: \"2\"}\n");
    }
}
