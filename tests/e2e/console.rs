//! The console in a real Chromium: clicks, keys, live updates, hostile texts and refusals.
//!
//! The page may raise no error and violate no policy in any test.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use async_nats::HeaderMap;
use dispatcher_tests::browser::{Browser, chromium};
use dispatcher_tests::test_env::TestEnv;
use dispatcher_tests::wait::TIMEOUT;
use dispatcher_tests::{Dispatcher, or_skip, paths, until};
use futures::StreamExt;
use serde_json::{Value, json};

/// A text that would be markup, a handler, another direction, and a terminal's escape sequence.
const HOSTILE: &str =
    "</pre><script>window.owned=1</script>\"><img src=x onerror=window.owned=1>\u{202e}gpj.exe\u{1b}[2J";
const TOKEN: &str = "0123456789abcdef0123456789abcdef";
/// Environment variable with the folder of the pictures (`make console-pictures`).
const PICTURES: &str = "CONSOLE_PICTURES";

async fn start(env: &TestEnv) -> Dispatcher {
    env.dispatcher().env("DISPATCHER_CONSOLE", "read").sleep_seconds("0").start().await
}

async fn open(dispatcher: &Dispatcher) -> Browser {
    let browser = Browser::open(&format!("{}/console/", dispatcher.admin_url)).await;
    browser.until_text("#connection", "live").await;
    browser
}

async fn is_unharmed(browser: &Browser) {
    assert_eq!(browser.problems(), [""; 0]);
    assert_eq!(browser.evaluate("typeof window.owned").await, "undefined");
    assert_eq!(browser.evaluate("document.querySelectorAll('img, script:not([src])').length").await, 0);
}

/// Stores status events of a Job that no cluster knows, as the dispatcher publishes them.
async fn store_events(env: &TestEnv, events: impl Iterator<Item = Value>) {
    let mut acks = futures::stream::iter(events)
        .map(|event| async move {
            let mut headers = HeaderMap::new();
            for (header, field) in
                [("Job-Event", "type"), ("Job-Uid", "uid"), ("Job-Resource-Version", "resourceVersion")]
            {
                headers.insert(header, event[field].as_str().unwrap());
            }
            headers.insert("Job-Request-Id", "r");
            let subject = format!("dispatcher.event.simple.{}", event["name"].as_str().unwrap());
            let sent = env.jetstream.publish_with_headers(subject, headers, event.to_string().into()).await;
            sent.unwrap().await.unwrap();
        })
        .buffered(256);
    while acks.next().await.is_some() {}
}

fn stored_event(name: &str, kind: &str, more: &Value) -> Value {
    let mut event = json!({
        "type": kind, "template": "simple", "name": name, "namespace": "jobs", "uid": format!("uid-{name}"),
        "requestId": "r", "requestSeq": 1, "resourceVersion": "1", "time": "2026-01-02T03:04:05Z",
        "status": {},
    });
    event.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
    event
}

fn complete(name: &str) -> Value {
    let outcome = json!({"result": "Complete", "succeeded": 1, "failed": 0});
    stored_event(name, "OUTCOME", &json!({"outcome": outcome}))
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_appear_and_change_without_a_reload_and_open_by_click_and_key() {
    or_skip!(chromium());
    let env = or_skip!(TestEnv::start().await);
    let dispatcher = start(&env).await;
    let browser = open(&dispatcher).await;
    browser.until_text(".template .ready", "ready").await;
    browser.until_text("#count", "0 of 0 Jobs").await;

    // A Job whose pods fail, and one that completes.
    env.request(r#"{"foo":"good"}"#).await;
    env.request(r#"{"foo":"bad","fail":true}"#).await;
    browser.until_text("#rows .row", "simple-job-bad").await;
    browser
        .until(
            "both outcomes",
            "['Complete', 'Failed'].every((state) => \
        [...document.querySelectorAll('#rows .state')].some((e) => e.textContent === state))",
        )
        .await;
    assert_eq!(browser.evaluate("document.querySelectorAll('#rows .row').length").await, 2);

    // By click: the attempts with their logs, the events, and commands to copy.
    let bad = "[...document.querySelectorAll('#rows .row')].find((e) => e.textContent.includes('-bad'))";
    browser.evaluate(&format!("{bad}.setAttribute('data-test', 'bad')")).await;
    browser.click("[data-test=bad]").await;
    browser.until_text("#detail h2", "simple-job-bad").await;
    browser.until_text("#detail .events summary", "OUTCOME").await;
    browser.until_text("#detail .attempt summary", "exit code 1").await;
    let attempts = browser.evaluate("document.querySelectorAll('#detail .attempt').length").await;
    assert_eq!(attempts, 4, "backoffLimit is 3");
    browser.click("#detail .events summary").await;
    browser.until_text("#detail .events pre", "\"ADDED\"").await;
    let command = format!("kubectl --namespace {} describe job simple-job-bad", env.namespace.name);
    browser.until_text("#detail .command code", &command).await;
    let copied = "navigator.clipboard.writeText = async (text) => { window.copied = text; }";
    browser.evaluate(copied).await;
    browser.click("#detail .copy").await;
    browser.until("the copy", "window.copied === \"nats sub 'jobs.simple.status.simple-job-bad'\"").await;
    browser.press("Escape").await;
    browser.until("the closed panel", "document.getElementById('detail').hidden").await;

    // By keys alone: filter, down to the board, open.
    browser.evaluate("document.activeElement.blur()").await;
    browser.press("/").await;
    browser.type_text("good").await;
    browser.until_text("#count", "1 of 2 Jobs").await;
    browser.press("ArrowDown").await;
    browser.press("ArrowDown").await;
    browser.until("the selection", "document.querySelector('#rows [aria-selected=true]')").await;
    browser.press("Enter").await;
    browser.until_text("#detail h2", "simple-job-good").await;

    // The filters by state and by template.
    browser.press("Escape").await;
    browser.evaluate("document.getElementById('filter').value = ''").await;
    browser.evaluate("document.getElementById('state').value = 'Failed'").await;
    browser.evaluate("document.getElementById('state').dispatchEvent(new Event('input'))").await;
    browser.until_text("#count", "1 of 2 Jobs").await;
    browser.click(".template[data-name=memory]").await;
    browser.until_text("#count", "0 of 2 Jobs").await;
    is_unharmed(&browser).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn open_panel_follows_its_job() {
    or_skip!(chromium());
    let env = or_skip!(TestEnv::start().await);
    let dispatcher = start(&env).await;
    let browser = open(&dispatcher).await;
    store_events(&env, std::iter::once(stored_event("live", "ADDED", &json!({})))).await;
    browser.until_text("#rows .row", "live").await;
    browser.click("#rows .row").await;
    browser.until_text("#detail .events summary", "ADDED").await;
    let attempt =
        json!({"attempt": {"pod": "pod-1", "reason": "Error", "exitCode": 3, "logTail": "disk full"}});
    store_events(&env, std::iter::once(stored_event("live", "ATTEMPT", &attempt))).await;
    browser.until_text("#detail .attempt .log", "disk full").await;
    browser.until_text("#rows .attempts", "1").await;
    is_unharmed(&browser).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_texts_stay_text() {
    or_skip!(chromium());
    let env = or_skip!(TestEnv::start().await);
    let dispatcher = start(&env).await;
    let browser = open(&dispatcher).await;

    // Events, which another program with the permission to publish them can forge.
    let log = HOSTILE.repeat(64 * 1024 / HOSTILE.len());
    let attempt = json!({"attempt": {"pod": HOSTILE, "reason": HOSTILE, "message": HOSTILE, "logTail": log,
        "node": HOSTILE, "exitCode": 1}});
    let stall = json!({"stall": {"reason": HOSTILE, "message": HOSTILE}, "requestId": "<b>r</b>"});
    let outcome = json!({"outcome": {"result": "Failed", "reason": HOSTILE, "message": HOSTILE,
        "succeeded": 0, "failed": 1}, "submitter": {"account": HOSTILE}});
    let events = [("ATTEMPT", attempt), ("STALLED", stall), ("OUTCOME", outcome)];
    store_events(&env, events.iter().map(|(kind, more)| stored_event("hostile", kind, more))).await;
    browser.until_text("#rows .reason", "<script>").await;
    browser.click("#rows .row").await;
    browser.until_text("#detail .log", "<script>window.owned=1</script>").await;
    for hidden in ["\\u202e", "\\u001b"] {
        browser.until_text("#detail .log", hidden).await;
    }
    browser.until_text("#detail dd", "</pre><script>").await;
    for opened in ["#detail .events details", "#detail .attempt"] {
        browser
            .evaluate(&format!("document.querySelectorAll('{opened}').forEach((e) => e.open = true)"))
            .await;
    }
    let raw = "document.body.innerText.includes('\\u202e')";
    assert_eq!(browser.evaluate(raw).await, false, "the page shows a raw direction override");
    is_unharmed(&browser).await;
    browser.press("Escape").await;

    // Requests, which every client can send.
    for payload in [HOSTILE.as_bytes(), b"\xff\xfe<script>", &vec![b'<'; 60_000]] {
        let sequence = env.publish(payload.to_vec(), None).await;
        env.dead_letter(sequence).await;
    }
    let foo = json!({"foo": HOSTILE, "name": HOSTILE}).to_string();
    let sequence = env.request(foo).await;
    env.dead_letter(sequence).await;
    browser.click("[data-view=letters]").await;
    browser.until_text("#letters-count", "4 dead letters").await;
    browser.until_text("#letters .reason", "InvalidJson").await;
    browser.click("#letters li:last-child summary").await;
    browser.until_text("#letters .payload", "</pre><script>").await;
    browser.until_text("#letters dd", "60000 bytes").await;
    browser.until_text("#letters dd", "not UTF-8").await;
    let longest = "Math.max(...[...document.querySelectorAll('.payload')].map((e) => e.textContent.length))";
    assert!(browser.evaluate(longest).await.as_u64().unwrap() <= 10 * 1024);
    is_unharmed(&browser).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_jobs_are_as_few_elements_as_a_screen_shows() {
    or_skip!(chromium());
    let env = or_skip!(TestEnv::start().await);
    let dispatcher = start(&env).await;
    store_events(&env, (0..10_500).map(|number| complete(&format!("job-{number}")))).await;
    let browser = open(&dispatcher).await;
    browser.until_text("#count", "10000 of 10000 Jobs").await;
    browser.until("complete", "!document.getElementById('count').textContent.includes('loading')").await;
    let rows = "document.querySelectorAll('#rows .row').length";
    assert!(browser.evaluate(rows).await.as_u64().unwrap() < 80);
    browser.click("#board").await;
    browser.press("Escape").await;
    browser.press("End").await;
    let last =
        "document.querySelector('#rows [aria-selected=true]')?.getAttribute('aria-posinset') === '10000'";
    browser.until("the last row", last).await;
    assert!(browser.evaluate(rows).await.as_u64().unwrap() < 80);
    browser.fill("#filter", "job-1049").await;
    browser.until_text("#count", "11 of 10000 Jobs").await;
    browser.fill("#filter", "new").await;
    store_events(&env, std::iter::once(complete("new-one"))).await;
    browser.until_text("#rows .name", "new-one").await;
    is_unharmed(&browser).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn page_connects_again_to_a_restarted_dispatcher() {
    or_skip!(chromium());
    let env = or_skip!(TestEnv::start().await);
    let dispatcher = start(&env).await;
    let browser = open(&dispatcher).await;
    store_events(&env, std::iter::once(complete("before"))).await;
    browser.until_text("#rows .name", "before").await;
    dispatcher.kill().await;
    browser.until_text("#connection", "reconnecting").await;
    store_events(&env, std::iter::once(complete("meanwhile"))).await;
    dispatcher.restart().await;
    browser.until_text("#connection", "live").await;
    browser.until_text("#rows .name", "meanwhile").await;
    browser.until_text("#rows .name", "before").await;
    assert_eq!(
        dispatcher.terminate().await,
        Some(0),
        "an open page delays the end: {}",
        dispatcher.log_end()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn request_is_submitted_and_cancelled_with_the_token_only() {
    or_skip!(chromium());
    let env = or_skip!(TestEnv::start().await);
    let folder = paths::temp_dir("token").unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, TOKEN).unwrap();
    let builder = env.dispatcher().env("DISPATCHER_CONSOLE", "write").sleep_seconds("3600");
    let builder = builder.env("DISPATCHER_CONSOLE_TOKEN_FILE", &token.display().to_string());
    let dispatcher = builder.start().await;
    let browser = open(&dispatcher).await;
    browser.until_text(".template", "simple").await;
    browser.click(".template[data-name=simple]").await;
    browser.click("[data-view=submit]").await;
    browser.until("the form", "document.querySelector('[name=parameter-foo]')").await;

    // Without the right token nothing is stored.
    browser.fill("[name=parameter-foo]", "by-console").await;
    browser.fill(".token", "wrong").await;
    browser.click("form [type=submit]").await;
    browser.until_text("#view-submit .result", "Unauthorized").await;
    let stored = env.jetstream.get_stream("JOBS").await.unwrap().cached_info().state.last_sequence;
    assert_eq!(stored, 0);

    // An invalid request is refused in the words of the template.
    browser.fill(".token", TOKEN).await;
    browser.fill("[name=parameter-foo]", "").await;
    browser.click("form [type=submit]").await;
    browser.until_text("#view-submit .result", "`foo`: required field is missing").await;

    browser.fill("[name=parameter-foo]", "by-console").await;
    browser.click("form [type=submit]").await;
    browser.until_text("#view-submit .result", "Job simple-job-by-console").await;
    env.job("simple-job-by-console").await;

    // Cancel the Job in its panel.
    browser.click("[data-view=jobs]").await;
    browser.until_text("#rows .row", "simple-job-by-console").await;
    browser.click("#rows .row").await;
    let is_asked = "document.querySelector('#detail .cancel').textContent === 'Really cancel?'";
    browser.click_until("#detail .cancel", is_asked).await;
    // The button is disabled at the second click, and disappears with the end of the Job.
    let is_sent = "(() => { const button = document.querySelector('#detail .cancel'); \
                   return !button || button.disabled || button.textContent !== 'Really cancel?' })()";
    browser.click_until("#detail .cancel", is_sent).await;
    assert_eq!(env.outcome("simple-job-by-console").await["result"], "Cancelled");
    browser.until_text("#rows .state", "Cancelled").await;
    assert!(!dispatcher.log().contains(TOKEN), "the log contains the token");

    // A page of another origin reads and does nothing, even with the token.
    let attack = format!(
        "fetch('{}/console/api/cancel?template=simple', {{method: 'POST', body: '{{}}', headers: \
         {{'Authorization': 'Bearer {TOKEN}', 'Content-Type': 'application/json'}}}})\
         .then(() => 'answered', () => 'refused')",
        dispatcher.admin_url.replace("127.0.0.1", "localhost")
    );
    browser.navigate(&format!("{}/livez", dispatcher.admin_url)).await;
    assert_eq!(browser.evaluate(&attack).await, "refused");
}

/// Reads the live board without a browser until it contains this text.
pub(crate) fn until_board_contains(address: &str, expected: &str) {
    let (mut stream, mut board) = view(address);
    let mut buffer = [0; 4096];
    while !board.contains(expected) {
        let read = stream.read(&mut buffer).unwrap_or_else(|error| panic!("{error}: {board}"));
        assert!(read > 0, "the board ended: {board}");
        board += &String::from_utf8_lossy(&buffer[..read]);
    }
}

/// Opens the live board without a browser; the first bytes of the answer.
fn view(address: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    write!(stream, "GET /console/api/live HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut buffer = [0; 1024];
    let read = stream.read(&mut buffer).unwrap();
    (stream, String::from_utf8_lossy(&buffer[..read]).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn viewers_are_bounded_and_take_no_connection_from_the_probes() {
    let env = or_skip!(TestEnv::start().await);
    let dispatcher = start(&env).await;
    let address = dispatcher.admin_url.trim_start_matches("http://").to_owned();
    let mut viewers: Vec<(TcpStream, String)> = (0..64).map(|_| view(&address)).collect();
    for (_, answer) in &viewers {
        assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains("text/event-stream"), "{answer}");
    }
    let (_, refused) = view(&address);
    let refused = refused.to_ascii_lowercase();
    assert!(refused.starts_with("http/1.1 503") && refused.contains("retry-after: "), "{refused}");
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(dispatcher.get(path).await.unwrap().0, 200, "{path}");
    }
    viewers.pop();
    until("a place for another viewer", TIMEOUT, || async {
        let (_, answer) = view(&address);
        if answer.starts_with("HTTP/1.1 200") { Ok(()) } else { Err(answer) }
    })
    .await;
}

/// The pictures of the documentation, with `make console-pictures`.
#[tokio::test(flavor = "multi_thread")]
async fn page_fits_on_wide_and_narrow_screens_in_light_and_dark() {
    or_skip!(chromium());
    let env = or_skip!(TestEnv::start().await);
    let builder = env.dispatcher().env("DISPATCHER_CONSOLE", "read").sleep_seconds("0.2");
    let dispatcher = builder.start().await;
    let browser = open(&dispatcher).await;
    for number in 1..=24 {
        let fail = if number % 6 == 0 { r#","fail":true"# } else { "" };
        env.request(format!(r#"{{"foo":"report-{number}"{fail}}}"#)).await;
    }
    browser.until_text("#count", "24 of 24 Jobs").await;
    env.outcome("simple-job-report-18").await;
    browser.fill("#filter", "").await;
    browser
        .until(
            "the failed Job",
            "[...document.querySelectorAll('#rows .row')].some((e) => \
        e.textContent.includes('report-18') && e.textContent.includes('Failed'))",
        )
        .await;
    let failed =
        "[...document.querySelectorAll('#rows .row')].find((e) => e.textContent.includes('report-18'))";
    browser.evaluate(&format!("{failed}.setAttribute('data-test', 'failed')")).await;
    browser.click("[data-test=failed]").await;
    browser.until_text("#detail .events summary", "OUTCOME").await;
    let folder = std::env::var_os(PICTURES).map(|folder| paths::workspace().join(folder));
    for (name, width, height, dark) in
        [("light", 1040, 600, false), ("dark", 1040, 600, true), ("phone", 390, 780, true)]
    {
        browser.resize(width, height).await;
        browser.prefer_dark(dark).await;
        if width < 600 {
            browser.click("#detail .close").await;
        }
        let overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth";
        assert_eq!(browser.evaluate(overflow).await, 0, "{name}: the page is wider than the screen");
        let background = browser.evaluate("getComputedStyle(document.body).backgroundColor").await;
        assert_eq!(background == "rgb(255, 255, 255)", !dark, "{name}: {background}");
        if let Some(folder) = &folder {
            browser.picture(&folder.join(format!("console-{name}.png"))).await;
        }
    }
    is_unharmed(&browser).await;
}
