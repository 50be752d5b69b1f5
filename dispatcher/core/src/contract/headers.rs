//! The names of the headers of the contract, and how text becomes a valid header value.

use crate::contract::text;

/// On status events: the type.
pub const JOB_EVENT: &str = "Job-Event";
/// On status events: the Job's uid.
pub const JOB_UID: &str = "Job-Uid";
/// On status events and rejections: the request id.
pub const JOB_REQUEST_ID: &str = "Job-Request-Id";
/// On rejections: the request's sequence in `JOBS`, which its publisher received in the `PubAck`.
pub const JOB_REQUEST_SEQ: &str = "Job-Request-Seq";
/// On rejections: when `JOBS` stored the request, in nanoseconds since 1970. With the sequence, it
/// identifies the request.
pub const JOB_REQUEST_TIME: &str = "Job-Request-Time";
/// On rejections: the length of the request's payload, in bytes. The dead letter may contain less.
pub const JOB_PAYLOAD_SIZE: &str = "Job-Payload-Size";
/// On rejections: SHA-256 of the request's whole payload, in hex.
pub const JOB_PAYLOAD_SHA256: &str = "Job-Payload-Sha256";
/// On status events, and on rejections whose payload is a JSON object: the hash of the request. It
/// detects a request id that another request reuses.
pub const JOB_REQUEST_HASH: &str = "Job-Request-Hash";
/// On status events: the latest resourceVersion of the Job that was published.
pub const JOB_RESOURCE_VERSION: &str = "Job-Resource-Version";
/// On rejections: the Job's name, if it is valid.
pub const JOB_NAME: &str = "Job-Name";
/// On rejections: the reason, for programs.
pub const JOB_ERROR: &str = "Job-Error";
/// On rejections: the reason, for people.
pub const JOB_ERROR_MESSAGE: &str = "Job-Error-Message";
/// On `submit`: what to wait for, `created` or `outcome`.
pub const JOB_WAIT: &str = "Job-Wait";
/// On `submit`: the longest time to wait, in seconds.
pub const JOB_WAIT_TIMEOUT: &str = "Job-Wait-Timeout";
/// On stored requests and dead letters: the submitter, if the request came by `submit`.
pub const JOB_SUBMITTER: &str = "Job-Submitter";
/// On stored requests: the dispatcher's signature of the submitter, if it has a key.
pub const JOB_SUBMITTER_SIGNATURE: &str = "Job-Submitter-Signature";
/// Defined by NATS: the account and user of a request that another account imports.
pub const NATS_REQUEST_INFO: &str = "Nats-Request-Info";
/// Defined by NATS (ADR-32): code and text of an error answer.
pub const NATS_SERVICE_ERROR_CODE: &str = "Nats-Service-Error-Code";
/// The text; see [`NATS_SERVICE_ERROR_CODE`].
pub const NATS_SERVICE_ERROR: &str = "Nats-Service-Error";
/// Defined by NATS: the publisher's id of a message.
pub const NATS_MSG_ID: &str = "Nats-Msg-Id";

/// The longest header value that the dispatcher writes, in bytes.
pub const MAX_VALUE: usize = 1024;

/// Escapes a text, replaces its line feeds and tabs (a line feed would end the header), and
/// truncates it to [`MAX_VALUE`].
#[must_use]
pub fn safe_value(text: &str) -> String {
    let mut value = String::with_capacity(text.len().min(MAX_VALUE));
    for c in text::printable(text).chars() {
        let c = if c.is_control() { ' ' } else { c };
        if value.len() + c.len_utf8() > MAX_VALUE {
            break;
        }
        value.push(c);
    }
    value
}

/// The value of the first header with this name in stored headers. Skips lines that are no headers.
#[must_use]
pub fn value_of<'a>(headers: &'a [u8], name: &str) -> Option<&'a str> {
    let mut lines = headers.split(|byte| *byte == b'\n');
    if !lines.next()?.starts_with(b"NATS/1.0") {
        return None;
    }
    lines.find_map(|line| {
        let (found, value) = std::str::from_utf8(line).ok()?.split_once(':')?;
        (found == name).then(|| value.trim())
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn header_value_is_one_line_of_bounded_size(text in "(?s).{0,1200}") {
            let value = safe_value(&text);
            prop_assert!(value.len() <= MAX_VALUE);
            prop_assert!(!value.chars().any(char::is_control));
        }
    }

    #[test]
    fn stored_header_is_found_by_its_name() {
        let headers = b"NATS/1.0\r\nA: 1\r\nno colon\r\nB:\xff\r\nJob-Name:b \r\nJob-Name: c\r\n\r\n";
        assert_eq!(value_of(headers, "A"), Some("1"));
        assert_eq!(value_of(headers, JOB_NAME), Some("b"));
        for name in ["B", "job-name", "NATS/1.0", "no colon", ""] {
            assert_eq!(value_of(headers, name), None, "{name}");
        }
        assert_eq!(value_of(b"A: 1\r\n", "A"), None, "no version line");
    }

    #[test]
    fn header_value_keeps_valid_text() {
        assert_eq!(safe_value("field `foo`: größer"), "field `foo`: größer");
        assert_eq!(safe_value("a\r\nNats-Msg-Id: x"), "a Nats-Msg-Id: x");
        assert_eq!(safe_value("a\rb\u{202e}c"), "a\\x0db\\u202ec");
    }
}
