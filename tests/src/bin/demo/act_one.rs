//! Act one: a request that succeeds, one that fails, and one that is none.

use crate::audience::Audience;
use crate::client::Client;
use crate::screen::Screen;

pub(crate) const GOOD: &str = "simple-job-good";
pub(crate) const FAIL: &str = "simple-job-fail";
/// No request: `foo` is required.
pub(crate) const BAD_REQUEST: &str = r#"{"fail":true}"#;

const REQUESTS: [(&str, &str); 3] = [
    (r#"{"foo":"good"}"#, ""),
    (r#"{"foo":"fail","fail":true}"#, "   # every attempt fails: some 80 s, see below"),
    (BAD_REQUEST, "                # no request: `foo` is missing"),
];

/// Publishes the three requests, as anyone would by hand.
pub(crate) async fn request(screen: &Screen, client: &Client) -> Result<(), String> {
    screen.title("Act one: three requests");
    for (payload, comment) in REQUESTS {
        let answer = client.request_job(payload).await?;
        screen.command(&format!("nats req jobs.simple.create '{payload}'{comment}"), &answer);
    }
    screen.plain("");
    screen.command("nats sub 'jobs.simple.status.>'", "");
    Ok(())
}

/// The outcome of the good request and the rejection of the bad one.
pub(crate) async fn first_answers(audience: &Audience) {
    audience.until(|board| board.outcomes.contains_key(GOOD) && !board.rejections.is_empty()).await;
}

/// The outcome of the failing request.
pub(crate) async fn last_answer(screen: &Screen, audience: &Audience) {
    if !audience.board.borrow().outcomes.contains_key(FAIL) {
        screen.title("Act one again: the failing Job");
        screen.plain(
            "  Kubernetes makes four attempts and waits 10, 20 and 40 s in between: some 80 s in all.",
        );
        screen.heading();
    }
    audience.until(|board| board.outcomes.contains_key(FAIL)).await;
}
