//! Payload and headers of a caller → what it asks for, or why that cannot be asked. Pure.

use std::time::Duration;

use async_nats::HeaderMap;
use serde::Deserialize;
use uuid::Uuid;

use crate::micro::error::{ErrorCode, ServiceError};
use dispatcher_core::contract::{
    event::EventType,
    headers::{JOB_WAIT, JOB_WAIT_TIMEOUT, NATS_MSG_ID},
    names::{JobName, Quoted, RequestId},
    rejection::{Reason, Rejection},
};

/// What `submit` is asked beside the request itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submit {
    /// The request's identity: the caller's, else a fresh one.
    pub id: RequestId,
    /// Whether the caller gave it: then the request may be there already.
    pub given: bool,
    /// What to wait for, and for how long at most.
    pub wait: Option<(Wait, Duration)>,
}

/// The header `Job-Wait`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Until the Job is there.
    Created,
    /// Until its outcome is stored.
    Outcome,
}

impl Wait {
    /// The word of the header.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Outcome => "outcome",
        }
    }

    /// Whether this event is what is waited for; `None` is a type that is not known here.
    pub fn is_met_by(self, event: Option<EventType>) -> bool {
        match self {
            Self::Created => true,
            Self::Outcome => event == Some(EventType::Outcome),
        }
    }
}

/// Reads the headers of a `submit`; nobody waits longer than `longest`, nor, unless it says so, shorter.
///
/// # Errors
/// A header without such a value.
pub fn submit(headers: Option<&HeaderMap>, longest: Duration) -> Result<Submit, ServiceError> {
    let header = |name: &str| headers.and_then(|headers| headers.get(name)).map(|value| value.as_str());
    let (id, given) = match header(NATS_MSG_ID) {
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
        let message = format!("header `{name}`: found {}, allowed is {allowed}", Quoted::new(found));
        ServiceError::new(ErrorCode::BadRequest, message)
    };
    let patience = match header(JOB_WAIT_TIMEOUT) {
        None => longest,
        Some(text) => match text.parse().map(Duration::from_secs) {
            Ok(patience) if (Duration::from_secs(1)..=longest).contains(&patience) => patience,
            _ => {
                let allowed = format!("a number of seconds from 1 to {}", longest.as_secs());
                return Err(bad(JOB_WAIT_TIMEOUT, text, &allowed));
            }
        },
    };
    let wait = match header(JOB_WAIT) {
        None => None,
        Some("created") => Some(Wait::Created),
        Some("outcome") => Some(Wait::Outcome),
        Some(other) => return Err(bad(JOB_WAIT, other, "`created` or `outcome`")),
    };
    Ok(Submit { id, given, wait: wait.map(|wait| (wait, patience)) })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ByName {
    name: JobName,
}

/// Reads the payload of a `get`: `{"name": "..."}`.
///
/// # Errors
/// Anything else.
pub fn get(payload: &[u8]) -> Result<JobName, ServiceError> {
    match serde_json::from_slice(payload) {
        Ok(ByName { name }) => Ok(name),
        Err(error) => {
            let message =
                format!("the payload is no query: {error}; allowed is {{\"name\": \"<a Job's name>\"}}");
            Err(ServiceError::new(ErrorCode::BadRequest, message))
        }
    }
}

/// What is to be cancelled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The Job of that name, or requests for it.
    Name(JobName),
    /// The request of that identity, or its Job.
    Id(RequestId),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ByNameOrId {
    name: Option<JobName>,
    request_id: Option<RequestId>,
}

/// Reads the payload of a `cancel`: `{"name": "..."}` or `{"requestId": "..."}`.
///
/// # Errors
/// Anything else.
pub fn cancel(payload: &[u8]) -> Result<Target, ServiceError> {
    let found = match serde_json::from_slice(payload) {
        Ok(ByNameOrId { name: Some(name), request_id: None }) => return Ok(Target::Name(name)),
        Ok(ByNameOrId { name: None, request_id: Some(id) }) => return Ok(Target::Id(id)),
        Ok(_) => "`name` and `requestId`, both or neither".to_owned(),
        Err(error) => error.to_string(),
    };
    let message = format!(
        "the payload is no query: {found}; allowed is {{\"name\": \"<a Job's name>\"}} or {{\"requestId\": \"<an identity>\"}}"
    );
    Err(ServiceError::new(ErrorCode::BadRequest, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: Duration = Duration::from_secs(600);

    fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
        list.iter().fold(HeaderMap::new(), |mut map, (name, value)| {
            map.insert(*name, *value);
            map
        })
    }

    #[test]
    fn without_headers_a_request_gets_an_identity_and_nobody_waits() {
        let one = submit(None, LONGEST).unwrap();
        assert_eq!((one.given, one.wait), (false, None));
        assert_ne!(one.id, submit(None, LONGEST).unwrap().id);
    }

    #[test]
    fn identity_and_wait_are_the_callers() {
        let map = headers(&[("Nats-Msg-Id", "order-1"), ("Job-Wait", "outcome"), ("Job-Wait-Timeout", "30")]);
        let submit = submit(Some(&map), LONGEST).unwrap();
        assert_eq!((submit.id.as_ref(), submit.given), ("order-1", true));
        assert_eq!(submit.wait, Some((Wait::Outcome, Duration::from_secs(30))));
    }

    #[test]
    fn a_caller_waits_as_long_as_the_setting_says_unless_it_says_otherwise() {
        let submit = submit(Some(&headers(&[("Job-Wait", "created")])), LONGEST).unwrap();
        assert_eq!(submit.wait, Some((Wait::Created, LONGEST)));
    }

    #[test]
    fn a_header_without_such_a_value_is_named() {
        for (name, value, word) in [
            ("Job-Wait", "done", "BadRequest"),
            ("Job-Wait", "", "BadRequest"),
            ("Job-Wait-Timeout", "0", "BadRequest"),
            ("Job-Wait-Timeout", "601", "BadRequest"),
            ("Job-Wait-Timeout", "-1", "BadRequest"),
            ("Job-Wait-Timeout", "10s", "BadRequest"),
            ("Nats-Msg-Id", "", "InvalidRequestId"),
        ] {
            let refusal = submit(Some(&headers(&[(name, value)])), LONGEST).unwrap_err();
            assert_eq!((refusal.word.as_str(), refusal.word.code()), (word, 400), "{name}: {value}");
            assert!(refusal.message.contains(name), "{}", refusal.message);
        }
    }

    #[test]
    fn a_query_by_name_is_an_object_with_a_valid_name_and_nothing_else() {
        assert_eq!(get(br#"{"name":"a-1"}"#).unwrap().as_ref(), "a-1");
        for bad in ["", "{}", "[]", r#"{"name":"a.b"}"#, r#"{"name":7}"#, r#"{"name":"a","x":1}"#, "\"a\""] {
            let refusal = get(bad.as_bytes()).unwrap_err();
            assert_eq!(refusal.word, ErrorCode::BadRequest, "{bad}");
            assert!(refusal.message.contains("\"name\""), "{}", refusal.message);
        }
    }

    #[test]
    fn what_is_to_be_cancelled_is_named_by_one_of_two() {
        assert!(matches!(cancel(br#"{"name":"a"}"#), Ok(Target::Name(name)) if name.as_ref() == "a"));
        assert!(
            matches!(cancel(br#"{"requestId":"order 1"}"#), Ok(Target::Id(id)) if id.as_ref() == "order 1")
        );
        for bad in ["", "{}", r#"{"name":"a","requestId":"b"}"#, r#"{"requestId":""}"#, r#"{"id":"a"}"#] {
            assert_eq!(cancel(bad.as_bytes()).unwrap_err().word, ErrorCode::BadRequest, "{bad}");
        }
    }
}
