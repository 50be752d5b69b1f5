//! The interface of the endpoints: parses what callers send, and describes it as JSON Schema
//! (draft 2020-12) in the endpoints' metadata. No I/O.

use std::{collections::HashMap, fmt::Display, time::Duration};

use async_nats::HeaderMap;
use dispatcher_core::{
    contract::{
        event::EventType,
        headers::{JOB_WAIT, JOB_WAIT_TIMEOUT, NATS_MSG_ID},
        names::{JobName, Quoted, RequestId},
        rejection::{Reason, Rejection},
        schemas,
    },
    request::object,
    template::{Template, type_of},
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::micro::error::{ErrorCode, ServiceError};

const DRAFT: &str = "https://json-schema.org/draft/2020-12/schema";
const LABEL: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";

/// An operation that each template has an endpoint for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Submit,
    Cancel,
    Get,
}

impl Verb {
    pub(crate) const ALL: [Self; 3] = [Self::Submit, Self::Cancel, Self::Get];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Submit => "submit",
            Self::Cancel => "cancel",
            Self::Get => "get",
        }
    }

    /// The metadata of the endpoint: the schemas of request and response as text.
    pub(super) fn metadata(self, template: &Template) -> HashMap<String, String> {
        let (request, response) = match self {
            Self::Submit => (template.request_schema(), accepted_schema()),
            Self::Cancel => (cancel_schema(), cancelled_schema()),
            Self::Get => (get_schema(), schemas::status_event()),
        };
        HashMap::from([
            ("request_schema".to_owned(), request.to_string()),
            ("response_schema".to_owned(), response.to_string()),
        ])
    }
}

/// The headers of a `submit` call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SubmitOptions {
    /// The caller's request id, or a new one.
    pub(super) id: RequestId,
    /// Whether the caller supplied the id: then the request may be stored already.
    pub(super) client_supplied: bool,
    /// The event to wait for, and the longest wait.
    pub(super) wait: Option<(Wait, Duration)>,
}

/// The event that a caller waits for: the header `Job-Wait`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// The Job exists.
    Created,
    /// The Job's outcome is stored.
    Outcome,
}

impl Wait {
    /// The value of the header.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Outcome => "outcome",
        }
    }

    /// Whether this event ends the wait. `None` is an unknown event type.
    pub(super) fn is_met_by(self, event: Option<EventType>) -> bool {
        match self {
            Self::Created => true,
            Self::Outcome => event == Some(EventType::Outcome),
        }
    }
}

/// Parses the headers of a `submit` call. `max_wait` is the longest wait and the default one.
///
/// # Errors
/// A header has an invalid value.
pub(super) fn parse_submit(headers: &HeaderMap, max_wait: Duration) -> Result<SubmitOptions, ServiceError> {
    let header = |name: &str| headers.get(name).map(async_nats::HeaderValue::as_str);
    let (id, client_supplied) = match header(NATS_MSG_ID) {
        None => (Uuid::new_v4().into(), false),
        Some(text) => match RequestId::try_from(text) {
            Ok(id) => (id, true),
            Err(error) => {
                let message = format!("header `{NATS_MSG_ID}`: {error}");
                return Err(Rejection::new(Reason::InvalidRequestId, message).into());
            }
        },
    };
    let bad = |name: &str, found: &str, allowed: &str| {
        let message = format!("header `{name}`: found {} (allowed: {allowed})", Quoted::new(found));
        ServiceError::new(ErrorCode::BadRequest, message)
    };
    let timeout = match header(JOB_WAIT_TIMEOUT) {
        None => max_wait,
        Some(text) => match text.parse().map(Duration::from_secs) {
            Ok(timeout) if (Duration::from_secs(1)..=max_wait).contains(&timeout) => timeout,
            _ => {
                let allowed = format!("a number of seconds from 1 to {}", max_wait.as_secs());
                return Err(bad(JOB_WAIT_TIMEOUT, text, &allowed));
            }
        },
    };
    let wait = match header(JOB_WAIT) {
        None => None,
        Some("created") => Some(Wait::Created),
        Some("outcome") => Some(Wait::Outcome),
        Some(other) => return Err(bad(JOB_WAIT, other, "`created`, `outcome`")),
    };
    Ok(SubmitOptions { id, client_supplied, wait: wait.map(|wait| (wait, timeout)) })
}

/// Parses the payload of a `get` call: `{"name": "..."}`.
///
/// # Errors
/// The payload has another form.
pub(super) fn parse_get(payload: &[u8]) -> Result<JobName, ServiceError> {
    let expected = r#"{"name": "<Job name>"}"#;
    match texts(payload, ["name"], expected)? {
        [Some(name)] => parse(&name, "name", expected),
        [None] => Err(bad_payload("`name`: required field is missing", expected)),
    }
}

/// What a `cancel` call cancels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// The Job with this name, or the queued requests for it.
    Name(JobName),
    /// The request with this id, or its Job.
    Id(RequestId),
}

/// Parses the payload of a `cancel` call: `{"name": "..."}` or `{"requestId": "..."}`.
///
/// # Errors
/// The payload has another form.
pub(super) fn parse_cancel(payload: &[u8]) -> Result<Target, ServiceError> {
    let expected = r#"{"name": "<Job name>"} or {"requestId": "<request id>"}"#;
    match texts(payload, ["name", "requestId"], expected)? {
        [Some(name), None] => parse(&name, "name", expected).map(Target::Name),
        [None, Some(id)] => parse(&id, "requestId", expected).map(Target::Id),
        [Some(_), Some(_)] => Err(bad_payload("found both `name` and `requestId`", expected)),
        [None, None] => Err(bad_payload("found neither `name` nor `requestId`", expected)),
    }
}

/// The values of the `allowed` fields of a payload. A `null` is an absent field.
fn texts<const N: usize>(
    payload: &[u8],
    allowed: [&str; N],
    expected: &str,
) -> Result<[Option<String>; N], ServiceError> {
    let mut fields = object::fields(payload).map_err(|error| bad_payload(&error.to_string(), expected))?;
    let mut texts = [const { None }; N];
    for (name, text) in allowed.iter().zip(&mut texts) {
        *text = match fields.remove(*name) {
            None | Some(Value::Null) => None,
            Some(Value::String(value)) => Some(value),
            Some(other) => {
                let problem = format!("`{name}`: expected a string, found {}", type_of(&other));
                return Err(bad_payload(&problem, expected));
            }
        };
    }
    match fields.keys().next() {
        None => Ok(texts),
        Some(unknown) => {
            let allowed = allowed.map(|name| format!("`{name}`")).join(", ");
            let problem = format!("unknown field {} (allowed: {allowed})", Quoted::new(unknown));
            Err(bad_payload(&problem, expected))
        }
    }
}

fn parse<'a, T: TryFrom<&'a str, Error: Display>>(
    text: &'a str,
    field: &str,
    expected: &str,
) -> Result<T, ServiceError> {
    T::try_from(text).map_err(|error| bad_payload(&format!("`{field}`: {error}"), expected))
}

fn bad_payload(problem: &str, expected: &str) -> ServiceError {
    let message = format!("invalid payload: {problem} (expected: {expected})");
    ServiceError::new(ErrorCode::BadRequest, message)
}

/// The answer to `submit` without `Job-Wait`.
fn accepted_schema() -> Value {
    json!({"$schema": DRAFT, "type": "object",
        "description": "the request is stored; with the header Job-Wait, the answer is an event instead",
        "properties": {"name": name_schema(), "requestId": {"type": "string"},
            "requestSeq": {"type": "integer"}, "template": {"type": "string"},
            "statusSubject": {"type": "string"}},
        "required": ["name", "requestId", "requestSeq", "template", "statusSubject"]})
}

fn get_schema() -> Value {
    json!({"$schema": DRAFT, "type": "object", "properties": {"name": name_schema()},
        "required": ["name"], "additionalProperties": false})
}

fn cancel_schema() -> Value {
    json!({"$schema": DRAFT, "type": "object", "additionalProperties": false,
        "minProperties": 1, "maxProperties": 1,
        "properties": {"name": name_schema(),
            "requestId": {"type": "string", "minLength": 1, "maxLength": 256}}})
}

/// The answer to `cancel`.
fn cancelled_schema() -> Value {
    json!({"$schema": DRAFT, "type": "object",
        "properties": {"result": {"enum": ["deleted", "deleting", "pending", "finished"]},
            "template": {"type": "string"}, "name": name_schema()},
        "required": ["result", "template", "name"]})
}

fn name_schema() -> Value {
    json!({"type": "string", "pattern": LABEL, "maxLength": 63, "description": "the Job's name"})
}

#[cfg(test)]
mod tests {
    use dispatcher_core::testing::simple;

    use super::*;

    const MAX_WAIT: Duration = Duration::from_secs(600);

    fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
        list.iter().fold(HeaderMap::new(), |mut map, (name, value)| {
            map.insert(*name, *value);
            map
        })
    }

    #[test]
    fn submit_without_headers_gets_a_new_id_and_does_not_wait() {
        let one = parse_submit(&HeaderMap::new(), MAX_WAIT).unwrap();
        assert_eq!((one.client_supplied, one.wait), (false, None));
        assert_ne!(one.id, parse_submit(&HeaderMap::new(), MAX_WAIT).unwrap().id);
    }

    #[test]
    fn submit_takes_id_and_wait_from_the_headers() {
        let map = headers(&[("Nats-Msg-Id", "order-1"), ("Job-Wait", "outcome"), ("Job-Wait-Timeout", "30")]);
        let options = parse_submit(&map, MAX_WAIT).unwrap();
        assert_eq!((options.id.as_ref(), options.client_supplied), ("order-1", true));
        assert_eq!(options.wait, Some((Wait::Outcome, Duration::from_secs(30))));
    }

    #[test]
    fn submit_waits_as_long_as_configured_by_default() {
        let options = parse_submit(&headers(&[("Job-Wait", "created")]), MAX_WAIT).unwrap();
        assert_eq!(options.wait, Some((Wait::Created, MAX_WAIT)));
    }

    #[test]
    fn invalid_header_of_submit_is_named() {
        for (name, value, code) in [
            ("Job-Wait", "done", "BadRequest"),
            ("Job-Wait", "", "BadRequest"),
            ("Job-Wait-Timeout", "0", "BadRequest"),
            ("Job-Wait-Timeout", "601", "BadRequest"),
            ("Job-Wait-Timeout", "-1", "BadRequest"),
            ("Job-Wait-Timeout", "10s", "BadRequest"),
            ("Nats-Msg-Id", "", "InvalidRequestId"),
        ] {
            let error = parse_submit(&headers(&[(name, value)]), MAX_WAIT).unwrap_err();
            assert_eq!((error.code.as_str(), error.code.http_status()), (code, 400), "{name}: {value}");
            assert!(error.message.contains(name), "{}", error.message);
        }
    }

    #[test]
    fn get_takes_an_object_with_a_valid_name_only() {
        assert_eq!(parse_get(br#"{"name":"a-1"}"#).unwrap().as_ref(), "a-1");
        let deep = format!("{{\"name\":{}", "[".repeat(1000));
        for bad in [
            "",
            "{}",
            "[]",
            r#"["a"]"#,
            r#"{"name":null}"#,
            r#"{"name":["a"]}"#,
            r#"{"name":"a.b"}"#,
            r#"{"name":7}"#,
            r#"{"name":"a","x":1}"#,
            r#"{"name":"a","name":"b"}"#,
            "\"a\"",
            "{\"name\":\"a\"",
            &deep,
        ] {
            assert_is_in_words_about_the_request(parse_get(bad.as_bytes()).unwrap_err(), bad);
        }
    }

    #[test]
    fn cancel_takes_either_a_name_or_a_request_id() {
        assert!(matches!(parse_cancel(br#"{"name":"a"}"#), Ok(Target::Name(name)) if name.as_ref() == "a"));
        let by_id = parse_cancel(br#"{"requestId":"order 1"}"#);
        assert!(matches!(by_id, Ok(Target::Id(id)) if id.as_ref() == "order 1"));
        for bad in [
            "",
            "{}",
            "[]",
            r#"["a",null]"#,
            r#"{"name":"a","requestId":"b"}"#,
            r#"{"requestId":""}"#,
            r#"{"requestId":17}"#,
            r#"{"id":"a"}"#,
        ] {
            assert_is_in_words_about_the_request(parse_cancel(bad.as_bytes()).unwrap_err(), bad);
        }
    }

    fn assert_is_in_words_about_the_request(error: ServiceError, payload: &str) {
        assert_eq!(error.code, ErrorCode::BadRequest, "{payload}");
        assert!(error.message.contains("expected: {\"name\""), "{payload}: {}", error.message);
        for internal in ["struct", "ByName", "variant", "invalid type"] {
            assert!(!error.message.contains(internal), "{payload}: {}", error.message);
        }
    }

    #[test]
    fn request_schema_describes_the_parameters_of_the_template() {
        let metadata = Verb::Submit.metadata(&simple());
        let schema: Value = serde_json::from_str(&metadata["request_schema"]).unwrap();
        assert_eq!(schema["required"], json!(["foo"]));
        assert_eq!(schema["properties"]["foo"]["maxLength"], 1024);
        assert!(schema["properties"]["fail"]["type"].is_null(), "any type");
        assert_eq!(schema["properties"]["name"]["maxLength"], 63);
        assert_eq!(schema["additionalProperties"], false);
    }
}
