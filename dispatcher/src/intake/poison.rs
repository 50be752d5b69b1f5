//! Finds the requests that a lost connection took with it, and rejects poison messages.
//!
//! If the server delivers a poison message, the connection ends, and with it the other messages of
//! its pull. So this module reads the consumer's pending requests directly from the stream, without
//! decoding their headers. It acks by ack subjects that it builds: the messages never arrived.

use async_nats::jetstream::{consumer::PullConsumer, stream::RawMessage};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use dispatcher_core::{
    contract::{
        names::TemplateName,
        rejection::{Reason, Rejection},
    },
    request::{
        Envelope, Identity,
        pending::{Deliveries, Verdict},
        poison::check_headers,
    },
};

use crate::{
    intake::dead_letters::{DeadLetter, DeadLetters},
    nats::{jobs_stream::JobsStream, scan::call},
};

/// The maximum number of requests that one check reads: the default `max_ack_pending`.
const MAX_CHECKED: usize = 10_000;
/// Deletes a request from the queue.
const TERM: &str = "+TERM";
/// Delivers a request again at once.
const NAK: &str = "-NAK";

/// Finds and rejects poison messages.
#[derive(Clone)]
pub(crate) struct PoisonHandler {
    /// The stream of requests.
    pub jobs: JobsStream,
    /// Keeps the rejected requests.
    pub dead_letters: DeadLetters,
}

/// The consumer whose requests are checked.
#[derive(Clone, Copy)]
struct Position<'a> {
    template: &'a TemplateName,
    /// The last delivery. The server accepts acks with any sequence up to this one.
    delivery: u64,
}

impl PoisonHandler {
    /// Checks every pending request of a consumer: rejects poison messages, and returns those that
    /// no process has received. Nothing may be on its way to this process.
    ///
    /// # Errors
    /// If the streams do not answer. Repeat the check.
    pub(crate) async fn check(
        &self,
        template: &TemplateName,
        consumer: &PullConsumer,
        deliveries: &mut Deliveries,
    ) -> Result<(), String> {
        let info = call("consumer info", consumer.get_info()).await?;
        if info.num_ack_pending == 0 {
            deliveries.check().complete(info.delivered.stream_sequence);
            return Ok(());
        }
        let position = Position { template, delivery: info.delivered.consumer_sequence };
        let mut next = info.ack_floor.stream_sequence.saturating_add(1);
        let mut check = deliveries.check();
        for _ in 0..MAX_CHECKED {
            let found = self.jobs.first_request(template, next).await?;
            let Some(message) = found.filter(|found| found.sequence <= info.delivered.stream_sequence) else {
                check.complete(info.delivered.stream_sequence);
                return Ok(());
            };
            next = message.sequence.saturating_add(1);
            let headers = decode(message.headers.as_deref().unwrap_or_default())?;
            match check.verdict(message.sequence, &headers) {
                Verdict::Reject(problem) => {
                    let sequence = message.sequence;
                    // It is delivered again after `ack_wait`, and must not block the others.
                    if let Err(error) = self.reject(position, message, problem).await {
                        tracing::warn!(%template, request_seq = sequence, error, "poison message not rejected");
                    }
                }
                Verdict::Return => self.ack(position, message.sequence, NAK).await?,
                Verdict::Leave => {}
            }
        }
        tracing::warn!(%template, checked = MAX_CHECKED, "not all pending requests were checked");
        Ok(())
    }

    /// Rejects a request that arrived with a status line in its headers.
    ///
    /// # Errors
    /// If the dead letter may not be stored. The server delivers the request again.
    pub(crate) async fn reject_received(
        &self,
        template: &TemplateName,
        sequence: u64,
        delivery: u64,
    ) -> Result<(), String> {
        let found = self.jobs.first_request(template, sequence).await?;
        // Another process has rejected it.
        let Some(message) = found.filter(|found| found.sequence == sequence) else { return Ok(()) };
        let headers = decode(message.headers.as_deref().unwrap_or_default())?;
        let problem = check_headers(&headers).err();
        let problem = problem.unwrap_or_else(|| "line 1 of the headers has a status".to_owned());
        self.reject(Position { template, delivery }, message, problem).await
    }

    async fn reject(
        &self,
        position: Position<'_>,
        message: RawMessage,
        problem: String,
    ) -> Result<(), String> {
        let template = position.template;
        let payload = Bytes::from(decode(&message.payload)?);
        let envelope = Envelope {
            payload: &payload,
            // The headers are unreliable.
            message_id: None,
            stream: &self.jobs.incarnation(),
            sequence: message.sequence,
            stored_nanos: message.time.unix_timestamp_nanos(),
        };
        let (Ok(identity) | Err((identity, _))) = Identity::of(&envelope);
        let rejection = Rejection::new(Reason::InvalidHeaders, problem);
        tracing::info!(
            %template,
            request_seq = message.sequence,
            message = rejection.message,
            "poison message rejected"
        );
        let dead_letter = DeadLetter {
            template,
            identity: &identity,
            stored: message.time,
            payload: payload.clone(),
            // The headers are unreliable.
            trace: None,
            submitter: None,
            rejection: &rejection,
        };
        self.dead_letters.reject(dead_letter).await?;
        self.ack(position, message.sequence, TERM).await
    }

    /// Sends an ack of a message that this process has not received, and waits for the
    /// confirmation.
    async fn ack(&self, position: Position<'_>, sequence: u64, ack: &'static str) -> Result<(), String> {
        let Position { template, delivery } = position;
        let subject = ack_subject(self.jobs.names().jobs(), &template.consumer_name(), sequence, delivery);
        call("ack", self.jobs.context().client().request(subject, ack.into())).await.map(drop)
    }
}

/// The ack subject of a delivery of a stored message. The server uses neither the number of
/// deliveries nor the time and the number of pending messages.
fn ack_subject(stream: &str, consumer: &str, sequence: u64, delivery: u64) -> String {
    format!("$JS.ACK.{stream}.{consumer}.1.{sequence}.{delivery}.1.0")
}

fn decode(text: &str) -> Result<Vec<u8>, String> {
    STANDARD.decode(text).map_err(|e| format!("the stored message is not base64: {e}"))
}

#[cfg(test)]
mod tests {
    use std::{str::FromStr, time::Duration};

    use async_nats::{ConnectOptions, HeaderName};
    use dispatcher_core::request::poison::is_header_name;
    use futures::StreamExt;
    use proptest::prelude::*;
    use serde_json::json;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;
    use crate::retry::with_deadline;

    #[test]
    fn header_names_are_valid_exactly_if_the_client_library_decodes_them() {
        for c in (0..=0x17f).filter_map(char::from_u32) {
            let name = format!("a{c}b");
            assert_eq!(is_header_name(&name), HeaderName::from_str(&name).is_ok(), "{c:?}");
        }
        assert_eq!(is_header_name(""), HeaderName::from_str("").is_ok());
    }

    #[test]
    fn ack_subject_has_the_form_of_a_delivery() {
        assert_eq!(
            ack_subject("JOBS", "dispatcher-simple", 7, 9),
            "$JS.ACK.JOBS.dispatcher-simple.1.7.9.1.0"
        );
    }

    const DEADLINE: Duration = Duration::from_secs(20);

    /// Whether the client library delivers a message with these headers, without a status. The
    /// server of this test sends one message. The client closes or replaces the connection if it
    /// cannot decode it.
    async fn delivers(headers: &[u8]) -> bool {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let info = json!({"server_id": "a", "server_name": "a", "version": "2.10.0", "go": "a",
                "host": "a", "port": 1, "proto": 1, "headers": true, "max_payload": 1_000_000});
            stream.write_all(format!("INFO {info}\r\n").as_bytes()).await.unwrap();
            let mut received = vec![];
            while !received.ends_with(b"PING\r\n") {
                stream.read_buf(&mut received).await.unwrap();
            }
            stream.write_all(b"PONG\r\n").await.unwrap();
            received.clear();
            while !received.starts_with(b"SUB a ") || !received.ends_with(b"\r\n") {
                stream.read_buf(&mut received).await.unwrap();
            }
            let length = headers.len();
            let line = format!("HMSG a 1 {length} {length}\r\n");
            stream.write_all(&[line.as_bytes(), headers, b"\r\n"].concat()).await.unwrap();
            let closed = async { while stream.read_buf(&mut received).await.is_ok_and(|read| read > 0) {} };
            // The client may connect again before it closes the connection.
            tokio::select! {
                () = closed => false,
                _ = listener.accept() => false,
            }
        };
        let client = async {
            let client = ConnectOptions::new().connect(address).await.unwrap();
            let mut messages = client.subscribe("a").await.unwrap();
            messages.next().await.is_some_and(|message| message.status.is_none())
        };
        tokio::select! {
            delivered = server => delivered,
            delivered = client => delivered,
        }
    }

    fn headers() -> impl Strategy<Value = Vec<u8>> {
        let parts = [
            "NATS/1.0", " 503", " none", "\r\n", "\r\n", "\n", "\r", ":", ": ", " ", "\t", "A", "b",
            "A: b\r\n", "\u{a0}", "\u{85}", "\u{e9}", "\u{b}", "\u{0}",
        ];
        let part = prop_oneof![
            20 => prop::sample::select(parts.to_vec()).prop_map(|text| text.as_bytes().to_vec()),
            1 => Just(vec![0xff]),
        ];
        let rest = prop::collection::vec(part, 0..8).prop_map(|parts| parts.concat());
        let start =
            prop::sample::select(vec!["NATS/1.0\r\n", "NATS/1.0\r\n", "NATS/1.0", "NATS/1.0\r\nA: b", ""]);
        let all = (start, rest).prop_map(|(start, rest)| [start.as_bytes(), &rest].concat());
        all.prop_filter("a server sends no empty headers", |headers| !headers.is_empty())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, max_shrink_iters: 0, ..ProptestConfig::default() })]

        #[test]
        fn headers_are_valid_exactly_if_the_client_library_decodes_them(headers in headers()) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let delivered = runtime.block_on(async { with_deadline(DEADLINE, delivers(&headers)).await }).unwrap();
            prop_assert_eq!(check_headers(&headers).is_ok(), delivered, "{:?}", check_headers(&headers));
        }
    }
}
