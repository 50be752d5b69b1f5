//! What the service keeps of a received message: the call, without the buffers of the connection.

use async_nats::{HeaderMap, Message, Subject};
use bytes::Bytes;
use dispatcher_core::contract::{
    headers::{JOB_WAIT, JOB_WAIT_TIMEOUT, NATS_MSG_ID, NATS_REQUEST_INFO},
    submitter::Submitter,
    trace::{TRACEPARENT, TRACESTATE},
};
use tokio::time::Instant;

use crate::micro::error::{ErrorCode, ServiceError};

/// The largest call, in bytes of payload and headers: as large as a request in `JOBS`.
pub(crate) const MAX_CALL: usize = 64 * 1024;
/// The headers that a call may have. Others are ignored and not kept.
const HEADERS: [&str; 5] = [NATS_MSG_ID, JOB_WAIT, JOB_WAIT_TIMEOUT, TRACEPARENT, TRACESTATE];

/// Who waits for an answer.
#[derive(Debug)]
pub(super) struct Caller {
    /// The subject of the answer; a message without one gets no answer.
    pub(super) reply: Option<Subject>,
    /// When the message was received.
    pub(super) received: Instant,
}

impl Caller {
    /// The caller of a message, from now.
    pub(super) fn of(message: &Message) -> Self {
        let reply = message.reply.as_ref().map(|reply| Subject::from(reply.as_str().to_owned()));
        Self { reply, received: Instant::now() }
    }
}

/// A received call.
#[derive(Debug)]
pub(crate) struct Call {
    /// The headers of [`HEADERS`].
    pub(crate) headers: HeaderMap,
    pub(crate) payload: Bytes,
    /// Who sent the call, if the server added it.
    pub(crate) submitter: Option<Submitter>,
}

impl Call {
    /// Copies what a call needs: every part of a message keeps the whole read buffer of the
    /// connection alive.
    ///
    /// # Errors
    /// [`ErrorCode::TooLarge`].
    pub(super) fn of(message: &Message) -> Result<Self, ServiceError> {
        let size = size(message);
        if size > MAX_CALL {
            let message =
                format!("payload and headers have {size} bytes (allowed: at most {MAX_CALL}); send less");
            return Err(ServiceError::new(ErrorCode::TooLarge, message));
        }
        let mut headers = HeaderMap::new();
        let received = message.headers.as_ref();
        for name in HEADERS {
            if let Some(value) = received.and_then(|headers| headers.get(name)) {
                headers.insert(name, value.as_str());
            }
        }
        let info = received.into_iter().flat_map(|headers| headers.get_all(NATS_REQUEST_INFO));
        let submitter = Submitter::from_request_info(info.map(async_nats::HeaderValue::as_str));
        let payload = Bytes::copy_from_slice(&message.payload);
        Ok(Self { headers, payload, submitter })
    }
}

/// The bytes of payload and headers on the wire.
fn size(message: &Message) -> usize {
    let subjects = message.subject.len() + message.reply.as_ref().map_or(0, |reply| reply.len());
    message.length.saturating_sub(subjects)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(headers: HeaderMap, payload: &str) -> Message {
        let (subject, reply) = (Subject::from("jobs.simple.submit"), Subject::from("_INBOX.x"));
        let bytes: usize = headers
            .iter()
            .flat_map(|(name, values)| {
                let name: &str = name.as_ref();
                values.iter().map(move |value| name.len() + value.as_str().len() + 4)
            })
            .sum();
        let length = subject.len() + reply.len() + bytes + payload.len();
        let payload = payload.to_owned().into();
        Message {
            subject,
            reply: Some(reply),
            payload,
            headers: Some(headers),
            status: None,
            description: None,
            length,
        }
    }

    #[test]
    fn payload_and_headers_count_together() {
        let half = "x".repeat(MAX_CALL / 2);
        let mut headers = HeaderMap::new();
        headers.insert("Unused", half.as_str());
        assert!(Call::of(&message(headers.clone(), "{}")).is_ok());
        let large = message(headers, &half);
        let error = Call::of(&large).unwrap_err();
        assert_eq!((error.code, error.code.http_status()), (ErrorCode::TooLarge, 413));
        assert_eq!(Caller::of(&large).reply.unwrap().as_str(), "_INBOX.x");
    }

    #[test]
    fn only_the_headers_of_a_call_are_kept() {
        let mut headers = HeaderMap::new();
        headers.insert("Unused", "x".repeat(60_000));
        headers.insert("Job-Wait", "outcome");
        let call = Call::of(&message(headers, "{}")).unwrap();
        assert_eq!(call.headers.len(), 1);
        assert_eq!(call.headers.get("Job-Wait").unwrap().as_str(), "outcome");
    }
}
