//! Part 1: a request whose Job succeeds, one whose Job fails, and an invalid one.

use crate::Demo;
use crate::summary::ExpectedJob;

const GOOD: &str = "simple-job-good";
const FAIL: &str = "simple-job-fail";
/// Invalid: the template requires `foo`.
pub(crate) const INVALID_REQUEST: &str = r#"{"fail":true}"#;

/// The expected outcomes.
pub(crate) const JOBS: [ExpectedJob; 2] = [
    ExpectedJob { name: GOOD, result: "Complete", reason: Some("CompletionsReached") },
    ExpectedJob { name: FAIL, result: "Failed", reason: Some("BackoffLimitExceeded") },
];

const REQUESTS: [(&str, &str); 3] = [
    (r#"{"foo":"good"}"#, ""),
    (r#"{"foo":"fail","fail":true}"#, "   # every attempt fails"),
    (INVALID_REQUEST, "                # invalid: `foo` is required"),
];

/// Publishes the requests and waits for the first outcome and the rejection.
pub(crate) async fn run(demo: &Demo) -> Result<(), String> {
    let Demo { screen, client, watcher, .. } = demo;
    screen.title("Part 1: three requests");
    for (payload, comment) in REQUESTS {
        screen.command(&format!("nats req jobs.simple.create '{payload}'{comment}"));
        client.request_job(payload).await?;
    }
    watcher.until(|board| board.outcomes.contains_key(GOOD) && !board.rejections.is_empty()).await;
    Ok(())
}

/// Waits for the outcome of the failing Job. Its retries take longer than the other parts.
pub(crate) async fn until_failed(demo: &Demo) {
    demo.watcher.until(|board| board.outcomes.contains_key(FAIL)).await;
}
