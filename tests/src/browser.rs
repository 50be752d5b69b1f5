//! A headless Chromium, driven by the Chrome `DevTools` Protocol over a pipe.
//!
//! The browser ends when this is dropped, or when the test process dies: its pipe closes then.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::paths;
use crate::wait::until;

/// How many times a click is repeated that a redrawn page missed.
const CLICKS: usize = 20;
/// How long the browser may take for anything, on a busy machine too.
const TIMEOUT: Duration = Duration::from_secs(150);

/// The flags of every headless Chromium.
pub const FLAGS: [&str; 12] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",
    // Every name of this zone is this machine, as after a DNS rebinding.
    "--host-resolver-rules=MAP *.example 127.0.0.1",
    "--password-store=basic",
];

/// The Chromium of this machine.
///
/// # Errors
/// If there is none.
pub fn chromium() -> Result<PathBuf, String> {
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let found = names.into_iter().find_map(|name| paths::program(name).ok());
    found.ok_or_else(|| "no Chromium on the PATH; install it with tests/setup".to_owned())
}

/// A running browser with one page.
pub struct Browser {
    stdin: tokio::sync::Mutex<ChildStdin>,
    answers: Answers,
    session: String,
    last_id: AtomicU64,
    _child: Child,
    _folder: TempDir,
}

#[derive(Clone, Default)]
struct Answers(Arc<Mutex<Received>>);

#[derive(Default)]
struct Received {
    waiting: HashMap<u64, oneshot::Sender<Value>>,
    problems: Vec<String>,
}

impl Answers {
    fn lock(&self) -> MutexGuard<'_, Received> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn receive(self, stdout: ChildStdout) {
        let mut reader = BufReader::new(stdout);
        let mut message = vec![];
        while reader.read_until(0, &mut message).await.is_ok_and(|read| read > 0) {
            let Some(text) = message.strip_suffix(b"\0") else { break };
            if let Ok(received) = serde_json::from_slice(text) {
                self.add(received);
            }
            message.clear();
        }
        // Every waiting call fails.
        self.lock().waiting.clear();
    }

    fn add(&self, message: Value) {
        let mut received = self.lock();
        let sender = message["id"].as_u64().and_then(|id| received.waiting.remove(&id));
        match (sender, message["method"].as_str()) {
            (Some(sender), _) => drop(sender.send(message)),
            (None, Some("Runtime.exceptionThrown")) => {
                received.problems.push(message["params"]["exceptionDetails"].to_string());
            }
            (None, Some("Log.entryAdded")) if message["params"]["entry"]["source"] != "network" => {
                received.problems.push(message["params"]["entry"].to_string());
            }
            _ => {}
        }
    }
}

impl Browser {
    /// Starts a browser and opens the address.
    ///
    /// # Panics
    /// If the browser does not start or does not answer.
    pub async fn open(url: &str) -> Self {
        let folder = paths::temp_dir("browser").expect("a temporary folder");
        let mut command = Command::new("sh");
        // The browser reads the protocol from file 3 and writes it to file 4.
        command.args(["-c", "exec \"$0\" \"$@\" 3<&0 4>&1 0</dev/null 1>&2"]);
        command.arg(chromium().expect("a Chromium")).args(FLAGS).arg("--remote-debugging-pipe");
        command.arg(format!("--user-data-dir={}", folder.path().join("profile").display()));
        command.env("HOME", folder.path()).kill_on_drop(true);
        let log = std::fs::File::create(folder.path().join("chromium.log")).expect("a log");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().expect("Chromium starts");
        let (stdin, stdout) = (child.stdin.take().expect("stdin"), child.stdout.take().expect("stdout"));
        let answers = Answers::default();
        tokio::spawn(answers.clone().receive(stdout));
        let mut browser = Self {
            stdin: tokio::sync::Mutex::new(stdin),
            answers,
            session: String::new(),
            last_id: AtomicU64::new(0),
            _child: child,
            _folder: folder,
        };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"})).await;
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let attached = browser.call("Target.attachToTarget", attach).await;
        browser.session = attached["sessionId"].as_str().expect("a session").to_owned();
        for domain in ["Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({})).await;
        }
        browser.resize(1280, 800).await;
        browser.navigate(url).await;
        browser
    }

    /// Opens another address.
    pub async fn navigate(&self, url: &str) {
        self.call("Page.navigate", json!({"url": url})).await;
        self.until("the page", "document.readyState === 'complete'").await;
    }

    /// Calls a method of the protocol.
    ///
    /// # Panics
    /// If the browser answers with an error, or not at all.
    pub async fn call(&self, method: &str, params: Value) -> Value {
        let id = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let (sender, answer) = oneshot::channel();
        self.answers.lock().waiting.insert(id, sender);
        let mut message = json!({"id": id, "method": method, "params": params});
        if !self.session.is_empty() {
            message["sessionId"] = self.session.clone().into();
        }
        let text = format!("{message}\0");
        self.stdin.lock().await.write_all(text.as_bytes()).await.expect("the browser runs");
        let answer = timeout(TIMEOUT, answer).await.unwrap_or_else(|_| panic!("{method}: no answer"));
        let mut answer = answer.unwrap_or_else(|_| panic!("{method}: the browser ended"));
        assert!(answer["error"].is_null(), "{method}: {}", answer["error"]);
        answer["result"].take()
    }

    /// The value of a JavaScript expression; a promise is awaited.
    ///
    /// # Panics
    /// If it throws.
    pub async fn evaluate(&self, expression: &str) -> Value {
        let params = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let mut result = self.call("Runtime.evaluate", params).await;
        assert!(result["exceptionDetails"].is_null(), "{expression}: {}", result["exceptionDetails"]);
        result["result"]["value"].take()
    }

    /// Waits until a JavaScript expression is true.
    pub async fn until(&self, what: &str, expression: &str) {
        until(what, TIMEOUT, || async {
            if self.evaluate(&format!("Boolean({expression})")).await == true {
                return Ok(());
            }
            Err(self.evaluate("document.body?.innerText.slice(0, 2000)").await)
        })
        .await;
    }

    /// The text of the first element that matches the selector; empty if there is none.
    pub async fn text(&self, selector: &str) -> String {
        let text = self.evaluate(&format!("document.querySelector({})?.textContent", json!(selector))).await;
        text.as_str().unwrap_or_default().to_owned()
    }

    /// Waits until an element's text contains `expected`.
    pub async fn until_text(&self, selector: &str, expected: &str) {
        let found = format!(
            "[...document.querySelectorAll({})].some((e) => e.textContent.includes({}))",
            json!(selector),
            json!(expected)
        );
        self.until(&format!("{expected:?} in {selector}"), &found).await;
    }

    /// Clicks into the middle of the first element that matches the selector.
    ///
    /// # Panics
    /// If there is no such element, or another one covers it.
    pub async fn click(&self, selector: &str) {
        let place = self
            .evaluate(&format!(
                "(() => {{ const e = document.querySelector({}); e.scrollIntoView({{block: 'nearest'}}); \
                 const r = e.getBoundingClientRect(); const [x, y] = [r.x + r.width / 2, r.y + r.height / 2]; \
                 const top = document.elementFromPoint(x, y); \
                 return {{x, y, isFree: e.contains(top) || top.contains(e)}}; }})()",
                json!(selector)
            ))
            .await;
        assert_eq!(place["isFree"], true, "{selector} is covered");
        for kind in ["mousePressed", "mouseReleased"] {
            let params =
                json!({"type": kind, "x": place["x"], "y": place["y"], "button": "left", "clickCount": 1});
            self.call("Input.dispatchMouseEvent", params).await;
        }
    }

    /// Clicks until the JavaScript expression `effect` is true: a page that redraws the element between
    /// the press and the release of the button gets no click.
    ///
    /// # Panics
    /// If many clicks have no effect.
    pub async fn click_until(&self, selector: &str, effect: &str) {
        for _ in 0..CLICKS {
            self.click(selector).await;
            if self.evaluate(effect).await == true {
                return;
            }
        }
        panic!("{CLICKS} clicks on {selector} without the effect {effect}");
    }

    /// Presses a key, such as `Enter`, `ArrowDown` or `/`.
    pub async fn press(&self, key: &str) {
        let (code, text) = match key {
            "Enter" => (13, "\r"),
            "Escape" => (27, ""),
            "Tab" => (9, ""),
            "ArrowDown" => (40, ""),
            "ArrowUp" => (38, ""),
            "End" => (35, ""),
            other => (0, other),
        };
        for kind in ["keyDown", "keyUp"] {
            let text = if kind == "keyDown" { text } else { "" };
            let params =
                json!({"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text});
            self.call("Input.dispatchKeyEvent", params).await;
        }
    }

    /// Types a text into the focused element.
    pub async fn type_text(&self, text: &str) {
        self.call("Input.insertText", json!({"text": text})).await;
    }

    /// Clicks into a field and replaces its text.
    pub async fn fill(&self, selector: &str, text: &str) {
        self.click(selector).await;
        self.evaluate(&format!("document.querySelector({}).select()", json!(selector))).await;
        if text.is_empty() {
            self.evaluate("document.execCommand('delete')").await;
        }
        self.type_text(text).await;
    }

    /// Changes the size of the page.
    pub async fn resize(&self, width: u32, height: u32) {
        let mobile = width < 600;
        let params = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile});
        self.call("Emulation.setDeviceMetricsOverride", params).await;
    }

    /// Prefers a dark page, or a light one.
    pub async fn prefer_dark(&self, dark: bool) {
        let value = if dark { "dark" } else { "light" };
        let features = json!([{"name": "prefers-color-scheme", "value": value}]);
        self.call("Emulation.setEmulatedMedia", json!({"features": features})).await;
    }

    /// Writes a picture of the page (PNG).
    ///
    /// # Panics
    /// If the file cannot be written.
    pub async fn picture(&self, file: &Path) {
        let shot = self.call("Page.captureScreenshot", json!({"format": "png"})).await;
        let data = STANDARD.decode(shot["data"].as_str().unwrap_or_default()).expect("base64");
        std::fs::write(file, data).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    }

    /// Uncaught exceptions, and what the browser refused, such as violations of the page's policy.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        self.answers.lock().problems.clone()
    }
}
