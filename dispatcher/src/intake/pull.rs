//! One pull of requests: asks the consumer, and tells requests from the server's answers.
//!
//! The client library's own pull takes a request whose stored headers contain a status line for an
//! answer of the server, and loses it. Only requests have an ack subject.

use std::time::Duration;

use async_nats::{Client, Message, Request, RequestErrorKind, StatusCode, Subscriber, jetstream};
use futures::{FutureExt, StreamExt};
use serde_json::json;
use tokio::time::sleep;

use crate::{nats::connection::Connection, retry::with_deadline};

/// The prefix of every ack subject.
const ACK: &str = "$JS.ACK.";
/// The deadline of a call to the server.
const DEADLINE: Duration = Duration::from_secs(3);
/// The deadline of one question whether an inbox is unused, and of all of them.
const PROBE: Duration = Duration::from_millis(50);
const UNUSED: Duration = Duration::from_secs(2);

/// A running pull.
pub(crate) struct Pull {
    client: Client,
    inbox: Inbox,
    subscriber: Subscriber,
    /// How many more requests the server may deliver.
    remaining: usize,
    /// Sends the acks.
    acks: jetstream::Context,
}

/// What a pull delivers.
pub(crate) enum Pulled {
    /// A request.
    Request(jetstream::Message),
    /// A request with a status line in its headers.
    Poison(jetstream::Message),
    /// The server has ended the pull.
    End,
    /// The pull failed.
    Failed(String),
    /// The client has ended.
    ConnectionEnded,
}

/// The subject that a pull's requests are delivered to.
pub(crate) struct Inbox(String);

impl Inbox {
    /// Waits until no server delivers to it any more. A server may still take a connection that has
    /// ended for a live one, and deliver requests to it.
    pub(crate) async fn until_unused(&self, client: &Client) {
        let unused = async {
            loop {
                let probe = Request::new().timeout(Some(PROBE));
                match client.send_request(self.0.clone(), probe).await {
                    Err(error) if error.kind() == RequestErrorKind::NoResponders => return,
                    _ => sleep(PROBE / 10).await,
                }
            }
        };
        if with_deadline(UNUSED, unused).await.is_err() {
            tracing::debug!("the inbox of a pull may still be in use");
        }
    }
}

impl Pull {
    /// Asks for at most `batch` requests within `expires`. Requests arrive on `intake`; their acks
    /// leave by `acks`.
    ///
    /// # Errors
    /// If the connection is closed.
    pub(crate) async fn start(
        intake: &Connection,
        acks: jetstream::Context,
        consumer: (&str, &str),
        (batch, expires): (usize, Duration),
    ) -> Result<Self, String> {
        let (api_prefix, consumer) = consumer;
        let client = intake.client();
        let inbox = Inbox(client.new_inbox());
        let subscriber = client.subscribe(inbox.0.clone()).await.map_err(|e| e.to_string())?;
        let nanos = u64::try_from(expires.as_nanos()).unwrap_or(u64::MAX);
        let query = json!({"batch": batch, "expires": nanos}).to_string();
        let stream = intake.names().jobs();
        let subject = format!("{api_prefix}.CONSUMER.MSG.NEXT.{stream}.{consumer}");
        let sent = client.publish_with_reply(subject, inbox.0.clone(), query.into()).await;
        sent.map_err(|e| e.to_string())?;
        Ok(Self { client, inbox, subscriber, remaining: batch, acks })
    }

    /// The next request, or the end of the pull. Cancelling the future loses nothing.
    pub(crate) async fn next(&mut self) -> Pulled {
        if self.remaining == 0 {
            return Pulled::End;
        }
        while let Some(message) = self.subscriber.next().await {
            if let Some(pulled) = self.classify(message) {
                return pulled;
            }
        }
        Pulled::ConnectionEnded
    }

    /// Everything that has arrived. The pull must not be used afterwards.
    pub(crate) fn arrived(&mut self) -> Vec<Pulled> {
        let mut arrived = vec![];
        while let Some(pulled) = self.next().now_or_never() {
            match pulled {
                Pulled::Request(_) | Pulled::Poison(_) => arrived.push(pulled),
                Pulled::End | Pulled::Failed(_) | Pulled::ConnectionEnded => break,
            }
        }
        arrived
    }

    /// Stops the pull.
    pub(crate) async fn stop(mut self) -> Inbox {
        let stopped = async {
            self.subscriber.unsubscribe().await.map_err(|e| e.to_string())?;
            self.client.flush().await.map_err(|e| e.to_string())?;
            // Once the server answers, it has processed the end of the subscription, also the one
            // that a reconnect has repeated.
            let probe = Request::new().timeout(Some(PROBE));
            let _ = self.client.send_request(self.inbox.0.clone(), probe).await;
            Ok::<(), String>(())
        };
        if let Ok(Err(error)) = with_deadline(DEADLINE, stopped).await {
            tracing::debug!(error, "the connection of a pull has ended");
        }
        self.inbox
    }

    /// `None` for messages that only keep the pull alive.
    fn classify(&mut self, message: Message) -> Option<Pulled> {
        let is_request = message.reply.as_ref().is_some_and(|reply| reply.starts_with(ACK));
        if is_request {
            self.remaining = self.remaining.saturating_sub(1);
            let poison = message.status.is_some();
            let message = jetstream::Message { message, context: self.acks.clone() };
            return Some(if poison { Pulled::Poison(message) } else { Pulled::Request(message) });
        }
        match message.status {
            None | Some(StatusCode::IDLE_HEARTBEAT) => None,
            Some(StatusCode::TIMEOUT | StatusCode::NOT_FOUND) => Some(Pulled::End),
            Some(status) => {
                let description = message.description.unwrap_or_default();
                Some(Pulled::Failed(format!("the server ended the pull: {status} {description}")))
            }
        }
    }
}
