//! The queues: the consumer and the waiting requests of each template, and the queues of templates that
//! no longer exist.

use std::time::Duration;

use serde_json::Value;

use crate::doctor::{Finding, Section, account::NEARLY_FULL, links};

const S: Section = Section::Streams;

/// The consumer of one template.
#[derive(Debug, Clone, PartialEq)]
pub struct Queue {
    /// The stream of requests.
    pub stream: String,
    /// The template.
    pub template: String,
    /// The name of the consumer.
    pub consumer: String,
    /// What the server knows about it.
    pub found: Found,
}

/// What the server knows about a consumer.
#[derive(Debug, Clone, PartialEq)]
pub enum Found {
    /// It exists.
    Exists(Details),
    /// It does not exist.
    Missing,
    /// No answer, or an error.
    Unknown(String),
}

/// A consumer that exists, compared with its definition by the code of the start.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Details {
    /// Settings that break a guarantee, and a time to live of the template that is too short for it.
    pub harmful: Vec<String>,
    /// Settings that let one client harm another.
    pub warnings: Vec<String>,
    /// Requests that wait and were not delivered yet.
    pub waiting: u64,
    /// Requests that were delivered and are not acknowledged.
    pub in_progress: u64,
    /// The age of the oldest request in the queue.
    pub oldest: Option<Duration>,
    /// The most requests of this template; `None` for no limit.
    pub limit: Option<u64>,
}

impl Details {
    /// The numbers in an answer to `CONSUMER.INFO`; the rest is unknown.
    #[must_use]
    pub fn of(info: &Value) -> Self {
        let number = |field: &str| info.get(field).and_then(Value::as_u64).unwrap_or_default();
        let (waiting, in_progress) = (number("num_pending"), number("num_ack_pending"));
        Self { waiting, in_progress, ..Self::default() }
    }
}

/// The findings about the queue of a template in use.
#[must_use]
pub fn findings(queue: &Queue, verify_only: bool) -> Vec<Finding> {
    let Queue { stream, template, consumer, found } = queue;
    let subject = format!("consumer {consumer}");
    let details = match found {
        Found::Exists(details) => details,
        Found::Missing if verify_only => {
            let advice = format!(
                "create it with `dispatcher nats-config --output DIRECTORY` and `nats consumer add {stream} \
                 --config DIRECTORY/{consumer}.json`, or run without --no-provision"
            );
            let message = format!("does not exist, so requests of the template {template} wait");
            return vec![S.error(subject, message).advise(advice).see(links::MISSING_STREAMS)];
        }
        Found::Missing => return vec![S.ok(subject, "does not exist; the start creates it")],
        Found::Unknown(error) => {
            let advice = format!("check `nats consumer info {stream} {consumer}`");
            return vec![S.error(subject, error).advise(advice).see(links::MISSING_STREAMS)];
        }
    };
    let edit = format!("`nats consumer edit {stream} {consumer}`");
    let harmful = details.harmful.iter().map(|setting| {
        let advice =
            format!("take the setting back with {edit}, or delete the consumer: the start creates it");
        S.error(&subject, setting).advise(advice).see(links::STREAMS)
    });
    let warnings = details.warnings.iter().map(|setting| {
        S.warning(&subject, setting).advise(format!("change the setting with {edit}")).see(links::STREAMS)
    });
    let mut found: Vec<_> = harmful.chain(warnings).collect();
    found.push(queued(&subject, stream, details));
    found
}

fn queued(subject: &str, stream: &str, details: &Details) -> Finding {
    let Details { waiting, in_progress, oldest, limit, .. } = details;
    let age = oldest.map_or(String::new(), |age| format!(", the oldest for {}", duration(age)));
    let message = format!("{waiting} requests wait, {in_progress} are in progress{age}");
    let queued = waiting.saturating_add(*in_progress) as f64;
    match limit.map(|limit| (limit, queued / limit as f64)) {
        Some((limit, share)) if share >= NEARLY_FULL => {
            let message = format!("{message} (limit: {limit})");
            let advice = format!(
                "find out why requests do not become Jobs, or raise max_msgs_per_subject of {stream}"
            );
            let found = match share < 1.0 {
                true => S.warning(subject, message),
                false => S.error(subject, format!("{message}: new requests are refused")),
            };
            found.advise(advice).see(links::WAITING_REQUESTS)
        }
        _ => S.ok(subject, message),
    }
}

/// The time in a readable unit.
pub(super) fn duration(time: Duration) -> String {
    match time.as_secs() {
        seconds @ ..120 => format!("{seconds} s"),
        seconds @ ..7200 => format!("{} min", seconds / 60),
        seconds @ ..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

/// A subject or consumer of the stream of requests whose template is not in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    /// The template.
    pub template: String,
    /// Its subject.
    pub subject: String,
    /// Its consumer.
    pub consumer: String,
    /// Requests in the queue; `None` if there is no consumer.
    pub requests: Option<u64>,
}

/// The findings about leftovers in the stream of requests, and about `others`: its consumers that
/// belong to no template.
#[must_use]
pub fn leftovers(stream: &str, leftovers: &[Leftover], others: u64) -> Vec<Finding> {
    let leftover = |Leftover { template, subject, consumer, requests }: &Leftover| {
        let queue = match requests {
            Some(requests) => format!("its queue has {requests} requests"),
            None => "it has no consumer".to_owned(),
        };
        let message =
            format!("{stream} has the subject {subject}, but no template {template} is in use; {queue}");
        let advice = format!(
            "restore the template. If it was removed for good: `nats consumer rm {stream} {consumer}`, then \
             remove the subject from {stream}"
        );
        S.warning(format!("template {template}"), message).advise(advice).see(links::REMOVING_TEMPLATES)
    };
    let mut found: Vec<_> = leftovers.iter().map(leftover).collect();
    if others > 0 {
        let message = format!("{others} consumers of {stream} belong to no template in use");
        let advice = format!(
            "list them with `nats consumer ls {stream}`. A consumer of another client takes requests away from \
             the dispatcher"
        );
        found.push(
            S.warning(format!("stream {stream}"), message).advise(advice).see(links::REMOVING_TEMPLATES),
        );
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Severity;

    fn queue(found: Found) -> Queue {
        Queue {
            stream: "JOBS".to_owned(),
            template: "simple".to_owned(),
            consumer: "dispatcher-simple".to_owned(),
            found,
        }
    }

    fn existing(details: Details) -> Vec<Finding> {
        findings(&queue(Found::Exists(details)), false)
    }

    #[test]
    fn missing_consumer_is_an_error_only_if_the_start_may_not_create_it() {
        assert_eq!(findings(&queue(Found::Missing), false)[0].severity, Severity::Ok);
        let missing = findings(&queue(Found::Missing), true).remove(0);
        assert_eq!(missing.severity, Severity::Error);
        assert!(missing.advice.unwrap().contains("DIRECTORY/dispatcher-simple.json"));
    }

    #[test]
    fn queue_is_described_and_a_full_one_is_an_error() {
        let details = |waiting| Details { waiting, limit: Some(10), ..Details::default() };
        let severity = |waiting| existing(details(waiting))[0].severity;
        assert_eq!([7, 8, 10].map(severity), [Severity::Ok, Severity::Warning, Severity::Error]);
        let old = Details { in_progress: 1, oldest: Some(Duration::from_secs(7260)), ..details(3) };
        assert_eq!(existing(old)[0].message, "3 requests wait, 1 are in progress, the oldest for 2 h");
    }

    #[test]
    fn harmful_setting_comes_before_the_queue() {
        let found = existing(Details { harmful: vec!["ack_wait: x".to_owned()], ..Details::default() });
        assert_eq!((found[0].severity, found.len()), (Severity::Error, 2));
        assert!(found[0].advice.as_ref().unwrap().contains("nats consumer edit JOBS dispatcher-simple"));
    }

    #[test]
    fn queue_of_a_removed_template_is_named_with_its_requests() {
        let leftover = Leftover {
            template: "old".to_owned(),
            subject: "jobs.old.create".to_owned(),
            consumer: "dispatcher-old".to_owned(),
            requests: Some(4),
        };
        let found = leftovers("JOBS", &[leftover], 2);
        assert!(found[0].message.ends_with("its queue has 4 requests"), "{found:?}");
        assert!(found[0].advice.as_ref().unwrap().contains("nats consumer rm JOBS dispatcher-old"));
        assert!(found[1].message.starts_with("2 consumers of JOBS"), "{found:?}");
        assert_eq!(leftovers("JOBS", &[], 0), []);
    }
}
