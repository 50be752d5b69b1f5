//! What the page reads on demand: the history of a Job, and the dead letters. Bounded in number,
//! bytes and time.

use std::{collections::VecDeque, time::Duration};

use axum::{
    extract::{Query, State},
    http::StatusCode,
    response::Response,
};
use dispatcher_core::contract::{
    headers::{
        JOB_ERROR, JOB_ERROR_MESSAGE, JOB_NAME, JOB_PAYLOAD_SIZE, JOB_REQUEST_ID, JOB_SUBMITTER, value_of,
    },
    names::{JobName, TemplateName},
    nats_names::NatsNames,
};
use serde::Deserialize;
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::sync::SemaphorePermit;

use crate::{
    console::{
        answer::{Failure, json_response},
        state::Console,
    },
    nats::browse::{Browser, Stored},
    retry::with_deadline,
};

/// How many events of a Job are shown, and how many bytes they have: the newest ones.
const MAX_EVENTS: usize = 200;
const MAX_EVENT_BYTES: usize = 2 * 1024 * 1024;
/// How many dead letters one answer has.
const MAX_LETTERS: u64 = 50;
/// How much of a dead letter's payload is shown, in bytes: as much as the dispatcher keeps.
const MAX_PAYLOAD: usize = 8 * 1024;
/// How long a read may take. The admin server's own deadline is longer.
const DEADLINE: Duration = Duration::from_secs(4);

/// A Job.
#[derive(Deserialize)]
pub(super) struct HistoryQuery {
    template: String,
    name: String,
}

/// The status events under the name of a Job.
pub(super) async fn history(
    State(console): State<Console>,
    Query(query): Query<HistoryQuery>,
) -> Result<Response, Failure> {
    let template = TemplateName::try_from(query.template).map_err(|e| Failure::bad_request(e.to_string()))?;
    let name = JobName::try_from(query.name).map_err(|e| Failure::bad_request(e.to_string()))?;
    let (browser, _place) = browser(&console).await?;
    let mut events = Newest::default();
    let subject = browser.names().status_subject(&template, &name);
    let read = browser.status_events(&subject, |message| events.add(message));
    let is_complete = match with_deadline(DEADLINE, read).await {
        Ok(read) => read.map(|()| true).map_err(Failure::unavailable)?,
        Err(_) => false,
    };
    let omitted = events.omitted;
    let events: Vec<Value> = events.messages.into_iter().map(|message| event(&message)).collect();
    let body = json!({"events": events, "omitted": omitted, "complete": is_complete});
    Ok(json_response(StatusCode::OK, &body))
}

/// The newest messages, within the bounds.
#[derive(Default)]
struct Newest {
    messages: VecDeque<Stored>,
    bytes: usize,
    omitted: usize,
}

impl Newest {
    fn add(&mut self, message: Stored) {
        self.bytes = self.bytes.saturating_add(message.payload.len());
        self.messages.push_back(message);
        while self.messages.len() > MAX_EVENTS || self.bytes > MAX_EVENT_BYTES {
            let Some(oldest) = self.messages.pop_front() else { return };
            self.bytes = self.bytes.saturating_sub(oldest.payload.len());
            self.omitted = self.omitted.saturating_add(1);
        }
    }
}

fn event(message: &Stored) -> Value {
    let text =
        || Value::String(String::from_utf8_lossy(&message.payload).chars().take(MAX_PAYLOAD).collect());
    let event = serde_json::from_slice(&message.payload).unwrap_or_else(|_| text());
    json!({"sequence": message.sequence, "stored": rfc3339(message.time), "event": event})
}

/// Where to continue.
#[derive(Deserialize)]
pub(super) struct LettersQuery {
    before: Option<u64>,
}

/// The newest dead letters.
pub(super) async fn dead_letters(
    State(console): State<Console>,
    Query(query): Query<LettersQuery>,
) -> Result<Response, Failure> {
    let (browser, _place) = browser(&console).await?;
    let read = with_deadline(DEADLINE, browser.dead_letters(query.before, MAX_LETTERS)).await;
    let (found, next) =
        read.map_err(|e| Failure::unavailable(e.to_string()))?.map_err(Failure::unavailable)?;
    let letters: Vec<Value> = found.iter().filter_map(|message| letter(browser.names(), message)).collect();
    Ok(json_response(StatusCode::OK, &json!({"letters": letters, "next": next})))
}

/// A dead letter; `None` for a message that is none.
fn letter(names: &NatsNames, message: &Stored) -> Option<Value> {
    let (template, request_seq) = names.parse_dead_letter_subject(&message.subject)?;
    let header = |name| value_of(&message.headers, name);
    let kept = message.payload.get(..MAX_PAYLOAD).unwrap_or(&message.payload);
    let size = header(JOB_PAYLOAD_SIZE).and_then(|size| size.parse().ok()).unwrap_or(message.payload.len());
    Some(json!({
        "sequence": message.sequence,
        "template": template,
        "requestSeq": request_seq,
        "subject": message.subject,
        "stream": names.job_rejected(),
        "stored": rfc3339(message.time),
        "reason": header(JOB_ERROR),
        "message": header(JOB_ERROR_MESSAGE),
        "name": header(JOB_NAME),
        "requestId": header(JOB_REQUEST_ID),
        "submitter": header(JOB_SUBMITTER),
        "payload": String::from_utf8_lossy(kept),
        "isText": std::str::from_utf8(kept).is_ok(),
        "payloadSize": size,
    }))
}

async fn browser(console: &Console) -> Result<(Browser, SemaphorePermit<'_>), Failure> {
    let backend = console.backend()?;
    let overloaded = || {
        let message = "too many reads are in progress; try again later";
        Failure::new(StatusCode::SERVICE_UNAVAILABLE, "Overloaded", message)
    };
    let place = with_deadline(DEADLINE / 4, console.0.reads.acquire()).await.map_err(|_| overloaded())?;
    Ok((Browser::new(backend.scans.clone()), place.map_err(|_| overloaded())?))
}

fn rfc3339(time: OffsetDateTime) -> String {
    time.format(&Rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(subject: &str, headers: &str, payload: Vec<u8>) -> Stored {
        let time = OffsetDateTime::UNIX_EPOCH;
        Stored { subject: subject.to_owned(), sequence: 7, time, headers: headers.into(), payload }
    }

    #[test]
    fn newest_events_are_kept_within_the_bounds() {
        let mut events = Newest::default();
        for _ in 0..MAX_EVENTS + 3 {
            events.add(stored("s", "", b"{}".to_vec()));
        }
        assert_eq!((events.messages.len(), events.omitted), (MAX_EVENTS, 3));
        let mut events = Newest::default();
        for _ in 0..5 {
            events.add(stored("s", "", vec![b'x'; MAX_EVENT_BYTES / 2]));
        }
        assert_eq!((events.messages.len(), events.omitted), (2, 3));
    }

    #[test]
    fn payload_that_is_no_text_or_json_is_shown_as_far_as_possible() {
        let shown = event(&stored("s", "", b"\xff{<script>".to_vec()));
        assert_eq!(shown["event"], "\u{fffd}{<script>");
        let shown =
            letter(&NatsNames::default(), &stored("jobs.simple.rejected.3", "", vec![0xff; 2 * MAX_PAYLOAD]))
                .unwrap();
        assert_eq!(
            (shown["isText"].clone(), shown["payloadSize"].clone()),
            (false.into(), (2 * MAX_PAYLOAD).into())
        );
        assert!(shown["payload"].as_str().unwrap().chars().count() <= MAX_PAYLOAD);
    }

    #[test]
    fn dead_letter_shows_its_reason_and_the_size_of_the_whole_payload() {
        let headers =
            "NATS/1.0\r\nJob-Error: Refused\r\nJob-Error-Message: <b>no\r\nJob-Payload-Size: 90\r\n\r\n";
        let shown = letter(&NatsNames::default(), &stored("jobs.simple.rejected.3", headers, b"{}".to_vec()))
            .unwrap();
        assert_eq!((shown["reason"].as_str(), shown["message"].as_str()), (Some("Refused"), Some("<b>no")));
        assert_eq!((shown["requestSeq"].as_u64(), shown["payloadSize"].as_u64()), (Some(3), Some(90)));
        assert!(letter(&NatsNames::default(), &stored("jobs.simple.other.3", headers, vec![])).is_none());
    }
}
