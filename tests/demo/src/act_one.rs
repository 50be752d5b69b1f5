//! Act one: a request that succeeds, one that fails, and one that is none.

use crate::Scene;
use crate::summary::Expected;

const GOOD: &str = "simple-job-good";
const FAIL: &str = "simple-job-fail";
/// No request: `foo` is required.
pub(crate) const BAD_REQUEST: &str = r#"{"fail":true}"#;

/// What must have become of its Jobs.
pub(crate) const JOBS: [Expected; 2] = [
    Expected { job: GOOD, result: "Complete", reason: Some("CompletionsReached") },
    Expected { job: FAIL, result: "Failed", reason: Some("BackoffLimitExceeded") },
];

const REQUESTS: [(&str, &str); 3] = [
    (r#"{"foo":"good"}"#, ""),
    (r#"{"foo":"fail","fail":true}"#, "   # every attempt fails"),
    (BAD_REQUEST, "                # no request: `foo` is missing"),
];

/// Publishes the three requests, as anyone would by hand, and waits for the first two answers.
pub(crate) async fn play(scene: &Scene) -> Result<(), String> {
    let Scene { screen, client, audience, .. } = scene;
    screen.title("Act one: three requests");
    for (payload, comment) in REQUESTS {
        screen.command(&format!("nats req jobs.simple.create '{payload}'{comment}"));
        client.request_job(payload).await?;
    }
    audience.until(|board| board.outcomes.contains_key(GOOD) && !board.rejections.is_empty()).await;
    Ok(())
}

/// The outcome of the failing request.
pub(crate) async fn end(scene: &Scene) {
    scene.audience.until(|board| board.outcomes.contains_key(FAIL)).await;
}
