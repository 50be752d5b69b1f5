//! The interface of the endpoints: parses what callers send, and describes it as JSON Schema
//! (draft 2020-12) in the endpoints' metadata. No I/O.

use std::{collections::HashMap, time::Duration};

use async_nats::HeaderMap;
use dispatcher_core::{
    contract::{
        event::EventType,
        headers::{JOB_WAIT, JOB_WAIT_TIMEOUT, NATS_MSG_ID},
        names::{JobName, Quoted, RequestId},
        rejection::{Reason, Rejection},
        schemas,
    },
    template::Template,
};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::micro::error::{ErrorCode, ServiceError};

const DRAFT: &str = "https://json-schema.org/draft/2020-12/schema";
const LABEL: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";

/// An operation that each template has an endpoint for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Submit,
    Cancel,
    Get,
}

impl Verb {
    pub(super) const ALL: [Self; 3] = [Self::Submit, Self::Cancel, Self::Get];

    pub(super) fn as_str(self) -> &'static str {
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
pub(super) fn parse_submit(
    headers: Option<&HeaderMap>,
    max_wait: Duration,
) -> Result<SubmitOptions, ServiceError> {
    let header =
        |name: &str| headers.and_then(|headers| headers.get(name)).map(async_nats::HeaderValue::as_str);
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ByName {
    name: JobName,
}

/// Parses the payload of a `get` call: `{"name": "..."}`.
///
/// # Errors
/// The payload has another form.
pub(super) fn parse_get(payload: &[u8]) -> Result<JobName, ServiceError> {
    match serde_json::from_slice(payload) {
        Ok(ByName { name }) => Ok(name),
        Err(error) => {
            let message = format!("invalid payload: {error} (expected: {{\"name\": \"<Job name>\"}})");
            Err(ServiceError::new(ErrorCode::BadRequest, message))
        }
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ByNameOrId {
    name: Option<JobName>,
    request_id: Option<RequestId>,
}

/// Parses the payload of a `cancel` call: `{"name": "..."}` or `{"requestId": "..."}`.
///
/// # Errors
/// The payload has another form.
pub(super) fn parse_cancel(payload: &[u8]) -> Result<Target, ServiceError> {
    let found = match serde_json::from_slice(payload) {
        Ok(ByNameOrId { name: Some(name), request_id: None }) => return Ok(Target::Name(name)),
        Ok(ByNameOrId { name: None, request_id: Some(id) }) => return Ok(Target::Id(id)),
        Ok(ByNameOrId { name: Some(_), request_id: Some(_) }) => {
            "found both `name` and `requestId`".to_owned()
        }
        Ok(ByNameOrId { name: None, request_id: None }) => "found neither `name` nor `requestId`".to_owned(),
        Err(error) => error.to_string(),
    };
    let message = format!(
        "invalid payload: {found} (expected: {{\"name\": \"<Job name>\"}} or \
         {{\"requestId\": \"<request id>\"}})"
    );
    Err(ServiceError::new(ErrorCode::BadRequest, message))
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
        "properties": {"result": {"enum": ["deleted", "pending", "finished"]},
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
        let one = parse_submit(None, MAX_WAIT).unwrap();
        assert_eq!((one.client_supplied, one.wait), (false, None));
        assert_ne!(one.id, parse_submit(None, MAX_WAIT).unwrap().id);
    }

    #[test]
    fn submit_takes_id_and_wait_from_the_headers() {
        let map = headers(&[("Nats-Msg-Id", "order-1"), ("Job-Wait", "outcome"), ("Job-Wait-Timeout", "30")]);
        let options = parse_submit(Some(&map), MAX_WAIT).unwrap();
        assert_eq!((options.id.as_ref(), options.client_supplied), ("order-1", true));
        assert_eq!(options.wait, Some((Wait::Outcome, Duration::from_secs(30))));
    }

    #[test]
    fn submit_waits_as_long_as_configured_by_default() {
        let options = parse_submit(Some(&headers(&[("Job-Wait", "created")])), MAX_WAIT).unwrap();
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
            let error = parse_submit(Some(&headers(&[(name, value)])), MAX_WAIT).unwrap_err();
            assert_eq!((error.code.as_str(), error.code.http_status()), (code, 400), "{name}: {value}");
            assert!(error.message.contains(name), "{}", error.message);
        }
    }

    #[test]
    fn get_takes_an_object_with_a_valid_name_only() {
        assert_eq!(parse_get(br#"{"name":"a-1"}"#).unwrap().as_ref(), "a-1");
        for bad in ["", "{}", "[]", r#"{"name":"a.b"}"#, r#"{"name":7}"#, r#"{"name":"a","x":1}"#, "\"a\""] {
            let error = parse_get(bad.as_bytes()).unwrap_err();
            assert_eq!(error.code, ErrorCode::BadRequest, "{bad}");
            assert!(error.message.contains("\"name\""), "{}", error.message);
        }
    }

    #[test]
    fn cancel_takes_either_a_name_or_a_request_id() {
        assert!(matches!(parse_cancel(br#"{"name":"a"}"#), Ok(Target::Name(name)) if name.as_ref() == "a"));
        let by_id = parse_cancel(br#"{"requestId":"order 1"}"#);
        assert!(matches!(by_id, Ok(Target::Id(id)) if id.as_ref() == "order 1"));
        for bad in ["", "{}", r#"{"name":"a","requestId":"b"}"#, r#"{"requestId":""}"#, r#"{"id":"a"}"#] {
            assert_eq!(parse_cancel(bad.as_bytes()).unwrap_err().code, ErrorCode::BadRequest, "{bad}");
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
