//! Web pages of other origins in a real Chromium, against `dispatcher dev`: they start no program,
//! request no Job and read nothing. A second server records what the browser really sends.

use std::sync::Arc;

use axum::Router;
use axum::body::to_bytes;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::Html;
use axum::routing::{get, post};
use dispatcher_tests::browser::{FLAGS, chromium};
use dispatcher_tests::helper::{Helper, Program};
use dispatcher_tests::wait::TIMEOUT;
use dispatcher_tests::{only_on_local, or_skip, paths, until};
use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::sync::Mutex;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::dev::Dev;

const PAGE: &str = include_str!("browser/attack.html");

/// A web server that ends when this is dropped.
struct Web {
    port: u16,
    _stop: DropGuard,
}

impl Web {
    async fn start(router: Router) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        tokio::spawn(async move { axum::serve(listener, router).with_graceful_shutdown(stopped).await });
        Self { port, _stop: stop.drop_guard() }
    }
}

/// Opens the page on the host `origin` until it has posted its results.
async fn results(origin: &str, flags: &[&str], config: &Value) -> Map<String, Value> {
    let page = PAGE.replace("__CONFIG__", &config.to_string());
    let posted = Arc::new(Mutex::new(None));
    let store = posted.clone();
    let router = Router::new().route("/", get(async || Html(page))).route(
        "/results",
        post(async move |body: String| {
            *store.lock().await = serde_json::from_str::<Map<String, Value>>(&body).ok();
        }),
    );
    let web = Web::start(router).await;
    let folder = paths::temp_dir("browser").unwrap();
    let mut args: Vec<_> = FLAGS.iter().chain(flags).map(ToString::to_string).collect();
    args.push(format!("--user-data-dir={}", folder.path().join("profile").display()));
    args.push(format!("http://{origin}:{}/", web.port));
    let program = Program {
        name: "chromium".to_owned(),
        path: chromium().unwrap(),
        args,
        env: vec![("HOME".to_owned(), folder.path().display().to_string())],
        log: folder.path().join("chromium.log"),
        folder: Some(folder.path().to_owned()),
    };
    let program = serde_json::to_string(&program).unwrap();
    let (_browser, _) = Helper::start(&["run", &program], &[], TIMEOUT).await.unwrap();
    let log = || Err(paths::tail(&folder.path().join("chromium.log"), 20));
    until("the results of the page", TIMEOUT, || async { posted.lock().await.take().map_or_else(log, Ok) })
        .await
}

/// A request as a server sees it.
#[derive(Debug)]
struct Seen {
    method: String,
    path: String,
    content_type: String,
    body: String,
}

/// A server without any protection. It records the requests.
async fn unprotected() -> (Web, Arc<Mutex<Vec<Seen>>>) {
    let seen = Arc::new(Mutex::new(vec![]));
    let store = seen.clone();
    let record = async move |request: Request| {
        let (parts, body) = request.into_parts();
        let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
        let body = to_bytes(body, 1 << 20).await.unwrap_or_default();
        store.lock().await.push(Seen {
            method: parts.method.to_string(),
            path: parts.uri.path().to_owned(),
            content_type: header("content-type").unwrap_or_default().to_owned(),
            body: String::from_utf8_lossy(&body).into_owned(),
        });
        StatusCode::OK
    };
    (Web::start(Router::new().fallback(record)).await, seen)
}

/// Whether an unprotected API would create a Job from this request, which needs no preflight.
fn creates_a_job(seen: &Seen) -> bool {
    let is_job = |body: &str| serde_json::from_str::<Value>(body).is_ok_and(|job| job["kind"] == "Job");
    seen.method == "POST" && is_job(&seen.body)
}

fn config(dev: &Dev, apis: &[String]) -> Value {
    let [nats, _, admin] = dev.ports;
    let nats = ["127.0.0.1", "localhost", "rebound.example"].map(|host| format!("http://{host}:{nats}"));
    json!({
        "apis": apis,
        "nats": nats,
        "admin": format!("http://127.0.0.1:{admin}"),
        "image": concat!("simple-job:", env!("CARGO_PKG_VERSION")),
    })
}

/// Publishes a request by the same lines as the page, over a connection that speaks only NATS.
async fn publish_by_lines(port: u16, value: &str) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let payload = json!({"foo": value}).to_string();
    let lines = format!(
        "CONNECT {{\"verbose\":false}}\r\nPUB jobs.simple.create {}\r\n{payload}\r\nPING\r\n",
        payload.len()
    );
    stream.write_all(lines.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let mut buffer = [0; 4096];
    while !answer.contains("PONG") {
        let read = timeout(TIMEOUT, stream.read(&mut buffer)).await.expect("no PONG").unwrap();
        assert!(read > 0, "{answer}");
        answer += &String::from_utf8_lossy(&buffer[..read]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn page_of_another_origin_starts_no_program_and_reads_nothing() {
    only_on_local!("dispatcher dev starts its own local cluster");
    or_skip!(chromium());
    let data = paths::temp_dir("data").unwrap();
    let dev = Dev::start(data.path(), &["--temporary", "--sleep-seconds=0"]).await;
    let [nats, api, _] = dev.ports;
    let (unprotected, seen) = unprotected().await;
    let mut apis: Vec<_> =
        ["https://127.0.0.1", "https://localhost", "https://rebound.example", "http://127.0.0.1"]
            .map(|base| format!("{base}:{api}"))
            .into();
    apis.push(format!("http://127.0.0.1:{}", unprotected.port));

    // As a browser is, and for a developer who has accepted the certificate in the browser.
    for (origin, flags) in [
        ("evil.example", vec![]),
        ("evil.example", vec!["--ignore-certificate-errors"]),
        ("127.0.0.1", vec!["--ignore-certificate-errors"]),
    ] {
        let results = results(origin, &flags, &config(&dev, &apis)).await;
        println!("{origin} {flags:?}: {} attempts", results.len());
        let read: Vec<_> = results
            .iter()
            .filter(|(_, result)| result.as_str().is_some_and(|text| text.starts_with("read")))
            .collect();
        assert!(read.is_empty(), "the page has read: {read:?}");
        let open: Vec<_> = results.iter().filter(|(_, result)| *result == "onopen").collect();
        assert!(open.is_empty(), "the page has opened a connection: {open:?}");
        assert!(results.len() > 130, "attempts are missing: {results:?}");
        if !flags.is_empty() {
            // The requests have reached the API: it has answered them, with a refusal.
            assert_eq!(results[&format!("{} fetch-text", apis[0])], "sent", "{results:?}");
        }
    }

    // An unprotected API would have created Jobs, and not only by one kind of request.
    let seen = seen.lock().await;
    let kinds: std::collections::BTreeSet<_> =
        seen.iter().filter(|seen| creates_a_job(seen)).map(|seen| seen.content_type.as_str()).collect();
    assert!(kinds.contains("") && kinds.contains("text/plain;charset=UTF-8"), "{kinds:?}: {seen:?}");
    assert!(seen.iter().any(|seen| seen.method == "OPTIONS" && seen.path.contains("/jobs")), "{seen:?}");

    // The lines for NATS have reached the server, which has closed the connections.
    dev.until_line_contains(&["nats-server", "parser ERROR", "ST / HTTP"]).await;
    publish_by_lines(nats, "control").await;
    assert_eq!(dev.last("simple-job-control", "OUTCOME").await["outcome"]["result"], "Complete");
    assert_eq!(dev.job_names().await, ["simple-job-control"], "{}", dev.output());
    let requests = dev.jetstream().await.get_stream("JOBS").await.unwrap().cached_info().state.last_sequence;
    assert_eq!(requests, 1, "a page has published requests");
}

/// After a DNS rebinding, a page has the origin of the API, and the browser sends no `Origin`.
#[tokio::test(flavor = "multi_thread")]
async fn rebound_host_name_shows_only_a_refusal() {
    only_on_local!("dispatcher dev starts its own local cluster");
    let chromium = or_skip!(chromium());
    let data = paths::temp_dir("data").unwrap();
    let dev = Dev::start(data.path(), &["--temporary"]).await;
    let folder = paths::temp_dir("browser").unwrap();
    for (host, expected) in [("rebound.example", "Host names another host"), ("localhost", "Unauthorized")] {
        let mut command = Command::new(&chromium);
        command.args(FLAGS).arg("--ignore-certificate-errors").arg("--dump-dom");
        command.arg(format!("--user-data-dir={}", folder.path().join(host).display()));
        command.arg(format!("https://{host}:{}/version", dev.ports[1])).env("HOME", folder.path());
        let output = timeout(TIMEOUT, command.kill_on_drop(true).output()).await.expect("timed out").unwrap();
        let dom = String::from_utf8_lossy(&output.stdout);
        assert!(dom.contains(expected), "{host}: {dom} {}", String::from_utf8_lossy(&output.stderr));
        assert!(!dom.contains("gitVersion"), "{host}: {dom}");
    }
}
