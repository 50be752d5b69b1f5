//! The streams and consumers of the contract, as the server knows them. Pure: `provision` creates and verifies them.

use std::time::Duration;

use async_nats::jetstream::{
    consumer::{AckPolicy, DeliverPolicy, pull},
    stream::{Config, DiscardPolicy, Republish, RetentionPolicy, StorageType, SubjectTransform},
};
use serde_json::Value;

use dispatcher_core::contract::names::TemplateName;

/// The stream of requests.
pub const JOBS: &str = "JOBS";
/// The stream of what was said of each Job.
pub const JOB_STATUS: &str = "JOB_STATUS";
/// The stream of dead letters.
pub const JOB_REJECTED: &str = "JOB_REJECTED";

/// The stream of the key-value bucket `JOB_CANCELS`.
pub const JOB_CANCELS: &str = "KV_JOB_CANCELS";
/// The subjects of that bucket's keys.
pub const CANCELS_SUBJECTS: &str = "$KV.JOB_CANCELS.>";

/// How long the server waits for an ack before it delivers again. It outlasts the handling of one request
/// ([`crate::intake::HANDLE_DEADLINE`]), so that nobody else works on a request that is still worked on.
pub const ACK_WAIT: Duration = Duration::from_secs(60);

/// Metadata of `JOB_STATUS`: the uid of the Jobs' namespace.
pub const NAMESPACE_UID: &str = dispatcher_core::contract::names::METADATA_NAMESPACE_UID;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// The largest request, in bytes.
const MAX_REQUEST: i32 = 64 * 1024;

/// Fields of a stream that the promises rest on; everything else belongs to the operator.
pub const PROMISED_OF_STREAM: [&str; 8] = [
    "retention",
    "storage",
    "discard",
    "discard_new_per_subject",
    "subject_transform",
    "republish",
    "no_ack",
    "sealed",
];
/// Fields of a consumer that the promises rest on.
pub const PROMISED_OF_CONSUMER: [&str; 5] =
    ["ack_policy", "deliver_policy", "filter_subject", "max_deliver", "headers_only"];

/// `JOBS` for these templates. A full template refuses its publishers and drops nothing; a template that does not exist is refused.
pub fn jobs<'a>(templates: impl IntoIterator<Item = &'a TemplateName>) -> Config {
    Config {
        name: JOBS.to_owned(),
        description: Some("Requests for Jobs: one message each, until it is a Job or a rejection".to_owned()),
        subjects: templates.into_iter().map(TemplateName::create_subject).collect(),
        retention: RetentionPolicy::WorkQueue,
        discard: DiscardPolicy::New,
        discard_new_per_subject: true,
        max_messages_per_subject: 1_000_000,
        max_message_size: MAX_REQUEST,
        ..base()
    }
}

/// `JOB_STATUS`: events come in on an inner subject and are stored under and republished to the public one, so that
/// only what the stream accepted is ever seen there.
pub fn job_status() -> Config {
    let public = "jobs.{{wildcard(1)}}.status.{{wildcard(2)}}";
    let inner = "dispatcher.event.*.*";
    Config {
        name: JOB_STATUS.to_owned(),
        description: Some("What was said of each Job, its outcome last".to_owned()),
        subjects: vec![inner.to_owned()],
        subject_transform: Some(SubjectTransform {
            source: inner.to_owned(),
            destination: public.to_owned(),
        }),
        republish: Some(Republish {
            source: "jobs.*.status.*".to_owned(),
            destination: public.to_owned(),
            headers_only: false,
        }),
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::Old,
        max_messages_per_subject: 1_000,
        max_age: 30 * DAY,
        allow_direct: true,
        ..base()
    }
}

/// `JOB_REJECTED`: the dead letters, payload unchanged, reason in the headers.
pub fn job_rejected() -> Config {
    Config {
        name: JOB_REJECTED.to_owned(),
        description: Some("Requests that could not become a Job, with the reason".to_owned()),
        subjects: vec!["jobs.*.rejected".to_owned()],
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::Old,
        max_age: 30 * DAY,
        max_message_size: 2 * MAX_REQUEST,
        allow_direct: true,
        ..base()
    }
}

/// The key-value bucket `JOB_CANCELS` as a stream: what is to be cancelled, until it is done.
pub fn job_cancels() -> Config {
    Config {
        name: JOB_CANCELS.to_owned(),
        description: Some("What is to be cancelled, until it is done".to_owned()),
        subjects: vec![CANCELS_SUBJECTS.to_owned()],
        retention: RetentionPolicy::Limits,
        // A full bucket refuses to cancel more, and forgets nothing.
        discard: DiscardPolicy::New,
        max_messages_per_subject: 1,
        max_message_size: 4 * 1024,
        max_bytes: 64 * 1024 * 1024,
        allow_rollup: true,
        deny_delete: true,
        allow_direct: true,
        ..base()
    }
}

fn base() -> Config {
    Config {
        storage: StorageType::File,
        num_replicas: 1,
        max_messages: -1,
        max_messages_per_subject: -1,
        max_bytes: -1,
        max_consumers: -1,
        duplicate_window: Duration::from_secs(120),
        ..Config::default()
    }
}

/// The durable pull consumer of one template.
pub fn consumer(template: &TemplateName) -> pull::Config {
    pull::Config {
        durable_name: Some(template.consumer_name()),
        name: Some(template.consumer_name()),
        description: Some(format!("Requests for Jobs of the template {template}")),
        deliver_policy: DeliverPolicy::All,
        ack_policy: AckPolicy::Explicit,
        ack_wait: ACK_WAIT,
        max_deliver: -1,
        max_ack_pending: 10_000,
        filter_subject: template.create_subject(),
        ..pull::Config::default()
    }
}

/// Every stream and consumer by name, as the `nats` CLI takes them (`--config`).
pub fn files(templates: &[TemplateName]) -> Vec<(String, Value)> {
    let streams = [jobs(templates), job_status(), job_rejected(), job_cancels()];
    let mut files: Vec<_> = streams.iter().map(|stream| (stream.name.clone(), given(stream))).collect();
    files.extend(templates.iter().map(|template| (template.consumer_name(), given(&consumer(template)))));
    files
}

/// The fields that are given.
fn given(config: &impl serde::Serialize) -> Value {
    let mut value = serde_json::to_value(config).unwrap_or(Value::Null);
    if let Some(fields) = value.as_object_mut() {
        fields.retain(|_, field| !field.is_null());
    }
    value
}

/// A field that differs from what the promises need.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{field}: found {found}, must be {expected}")]
pub struct Conflict {
    field: &'static str,
    expected: Value,
    found: Value,
}

/// The promised fields in which `found` differs from `expected`; a field that is absent means its zero value.
pub fn conflicts(expected: &Value, found: &Value, fields: &[&'static str]) -> Vec<Conflict> {
    let differing = |field: &'static str| {
        let (expected, found) = (promised(expected, field), promised(found, field));
        (expected != found).then_some(Conflict { field, expected, found })
    };
    fields.iter().copied().filter_map(differing).collect()
}

fn promised(config: &Value, field: &str) -> Value {
    match config.get(field) {
        None | Some(Value::Bool(false)) => Value::Null,
        Some(value) => value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_conflict_names_field_found_and_expected() {
        let expected = serde_json::to_value(jobs([&TemplateName::try_from("simple").unwrap()])).unwrap();
        assert_eq!(conflicts(&expected, &expected, &PROMISED_OF_STREAM), []);
        let mut found = expected.clone();
        found["retention"] = json!("limits");
        found["max_age"] = json!(5);
        let conflicts = conflicts(&expected, &found, &PROMISED_OF_STREAM);
        assert_eq!(conflicts.len(), 1, "the age belongs to the operator");
        assert_eq!(conflicts[0].to_string(), r#"retention: found "limits", must be "workqueue""#);
    }

    #[test]
    fn an_absent_flag_is_a_false_one() {
        assert_eq!(conflicts(&json!({"sealed": false}), &json!({}), &["sealed"]), []);
        assert_eq!(conflicts(&json!({}), &json!({"sealed": true}), &["sealed"]).len(), 1);
    }

    #[test]
    fn a_dead_letter_has_room_for_the_largest_request_and_its_headers() {
        assert!(job_rejected().max_message_size >= MAX_REQUEST + 16 * 1024);
    }
}
