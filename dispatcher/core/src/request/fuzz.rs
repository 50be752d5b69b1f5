//! Fuzz target: any message gives a valid rejection, or a Job that differs from its template only in
//! the referenced values; and repeatedly the same one.
//!
//! An input is `<template>`, optionally a tab and the `Nats-Msg-Id`, a new line, and the payload.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::LazyLock,
};

use serde_json::{Value, json};

use crate::{
    contract::{
        headers,
        job::{JobObject, JobState},
        names::{TemplateName, is_label},
        nats_names::NatsNames,
        rejection::{Reason, Rejection},
        trace::TraceContext,
    },
    fuzz::Target,
    request::{Envelope, Identity, Request, admission::is_of_request, job, poison},
    template::{Template, tests::places::TEMPLATE as PLACES},
    testing::SIMPLE,
};

const MEMORY: &str = include_str!("../../../../deploy/templates/memory.yaml");

/// The longest message of a rejection, in characters: it becomes a header.
const MAX_MESSAGE: usize = 4096;
/// The largest number of references to a parameter in the manifests below.
const MAX_REFERENCES: usize = 16;

/// A template with two Jobs that differ exactly in the referenced values.
struct Shape {
    template: Template,
    one: Value,
    another: Value,
}

static SHAPES: LazyLock<[Shape; 3]> = LazyLock::new(|| {
    let memory = |foo, bytes| json!({"foo": foo, "reqBytes": bytes, "limBytes": bytes, "allocBytes": bytes});
    let places = |s, n, b| json!({"s": s, "n": n, "b": b, "o": s});
    [
        (SIMPLE, [json!({"foo": "a", "fail": 1}), json!({"foo": "b", "fail": "x"})]),
        (MEMORY, [memory("a", "1Mi"), memory("b", "2Mi")]),
        (PLACES, [places("a", 1, true), places("b", 2, false)]),
    ]
    .map(|(text, requests)| {
        let template = Template::parse(text).unwrap();
        let [one, another] =
            requests.map(|payload| build(&template, None, payload.to_string().as_bytes()).unwrap().1);
        Shape { template, one, another }
    })
});

fn parse(template: &Template, message_id: Option<&str>, payload: &[u8]) -> Result<Request, Rejection> {
    let envelope = Envelope { payload, message_id, stream: "JOBS 1", sequence: 17, stored_nanos: 5 };
    let identity = Identity::of(&envelope).map_err(|(_, rejection)| rejection)?;
    Request::parse(template, identity, payload)
}

fn build(template: &Template, id: Option<&str>, payload: &[u8]) -> Result<(Request, Value), Rejection> {
    let request = parse(template, id, payload)?;
    let job = job::build(&request, template, &TraceContext::default())?;
    Ok((request, job))
}

fn check(input: &[u8]) -> u64 {
    let _ = poison::check_headers(input);
    let text = String::from_utf8_lossy(input);
    let names = NatsNames::default();
    if let Some((template, name)) = names.parse_status_subject(&text) {
        assert_eq!(names.status_subject(&template, &name), text);
    }
    let end = input.iter().position(|byte| *byte == b'\n');
    let (head, payload) = end.map_or((&[][..], input), |end| (&input[..end], &input[end + 1..]));
    let head = String::from_utf8_lossy(head).into_owned();
    let (template, id) =
        head.split_once('\t').map_or((head.as_str(), None), |(template, id)| (template, Some(id)));
    let shape = SHAPES.iter().find(|shape| shape.template.name.as_ref() == template).unwrap_or(&SHAPES[0]);
    let result = build(&shape.template, id, payload);
    assert_eq!(result, build(&shape.template, id, payload), "not deterministic");
    let mut behaviour = DefaultHasher::new();
    match result {
        Err(rejection) => {
            check_rejection(&rejection);
            let words =
                rejection.message.split(|c: char| !c.is_ascii_lowercase()).filter(|word| word.len() > 3);
            (rejection.reason, words.take(6).collect::<Vec<_>>()).hash(&mut behaviour);
        }
        Ok((request, job)) => {
            check_job(shape, &request, payload, &job);
            let lengths: Vec<_> = request.values.values().map(|value| value.len().ilog2_or_zero()).collect();
            (request.name.as_ref().len(), lengths).hash(&mut behaviour);
        }
    }
    behaviour.finish()
}

trait Ilog2 {
    fn ilog2_or_zero(self) -> u32;
}

impl Ilog2 for usize {
    fn ilog2_or_zero(self) -> u32 {
        self.checked_ilog2().unwrap_or_default()
    }
}

fn check_rejection(rejection: &Rejection) {
    use Reason::{InvalidJson, InvalidName, InvalidRequest, InvalidRequestId, Refused};
    let Rejection { reason, message, name } = rejection;
    let reasons = [InvalidJson, InvalidRequest, InvalidName, InvalidRequestId, Refused];
    assert!(reasons.contains(reason), "{reason} is not about the request itself");
    assert!(!message.is_empty() && message.chars().count() <= MAX_MESSAGE, "{} characters", message.len());
    assert!(!headers::safe_value(message).contains(['\r', '\n', '\0']));
    assert!(name.as_ref().is_none_or(|name| is_label(name.as_ref())));
}

fn check_job(shape: &Shape, request: &Request, payload: &[u8], job: &Value) {
    let Shape { template, one, another } = shape;
    assert!(is_label(request.name.as_ref()), "{}", request.name);
    assert_eq!(job["metadata"]["name"], request.name.as_ref());
    assert_eq!(job["metadata"]["labels"], one["metadata"]["labels"]);
    let keys =
        |job: &Value| job["metadata"]["annotations"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(job), keys(one));
    assert!(is_like(&job["spec"], &one["spec"], &another["spec"]), "{}", job["spec"]);
    let (size, bound) =
        (job.to_string().len(), one.to_string().len() + MAX_REFERENCES * payload.len() + 1024);
    assert!(size <= bound, "a Job of {size} bytes from a request of {} bytes", payload.len());
    // The state is decoded again from the created Job.
    let mut created = job.clone();
    created["metadata"]["uid"] = json!("u");
    created["metadata"]["resourceVersion"] = json!("1");
    let created: JobObject = serde_json::from_value(created).unwrap();
    let state = JobState::from_object(&created).unwrap();
    assert!(is_of_request(&created, &request.identity, Some(&request.hash)));
    assert_eq!((&state.template, &state.name), (&template.name, &request.name));
    assert_eq!((&state.request_id, state.request_seq), (&request.identity.id, 17));
    assert_eq!(state.request_hash, request.hash);
    assert_eq!(Request::hash_of(&template.name, payload), Some(request.hash.clone()));
    assert!(TemplateName::try_from(template.name.as_ref()).is_ok());
}

/// Whether `found` differs from `one` only in strings in which `one` and `another` differ, and in
/// omitted list entries.
fn is_like(found: &Value, one: &Value, another: &Value) -> bool {
    match (found, one, another) {
        (Value::Object(found), Value::Object(one), Value::Object(another)) => {
            found.len() == one.len()
                && found.iter().all(|(key, value)| match (one.get(key), another.get(key)) {
                    (Some(one), Some(another)) => is_like(value, one, another),
                    _ => false,
                })
        }
        (Value::Array(found), Value::Array(one), Value::Array(another)) => {
            let mut allowed = one.iter().zip(another);
            found.iter().all(|item| allowed.any(|(one, another)| is_like(item, one, another)))
        }
        (Value::String(_), Value::String(one), Value::String(another)) if one != another => true,
        _ => found == one,
    }
}

#[test]
fn any_bytes_give_a_valid_job_or_rejection() {
    let bad =
        crate::testing::bad_requests().into_iter().map(|bad| [b"simple\n", bad.payload.as_slice()].concat());
    Target { name: "requests", seeds: bad.collect(), runs: 10_000, check }.fuzz();
}
