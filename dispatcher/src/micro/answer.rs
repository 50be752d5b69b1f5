//! Sends the answers of the NATS service.

use std::time::Duration;

use async_nats::Client;
use bytes::Bytes;

use crate::{
    micro::{
        call::Caller,
        error::{ErrorCode, ServiceError},
    },
    retry::with_deadline,
};

/// The longest time to hand an answer to the server.
const DEADLINE: Duration = Duration::from_secs(5);

/// Sends answers by one connection.
#[derive(Clone)]
pub(super) struct Answerer {
    client: Client,
}

impl Answerer {
    /// Sends by this connection.
    pub(super) fn new(client: Client) -> Self {
        Self { client }
    }

    /// The largest message that the server accepts, in bytes.
    pub(super) fn max_payload(&self) -> usize {
        self.client.max_payload()
    }

    /// Sends an answer and waits until it has left this process.
    pub(super) async fn send(&self, caller: &Caller, answer: Result<Bytes, ServiceError>) {
        let sent = with_deadline(DEADLINE, self.publish(caller, answer)).await;
        if let Err(error) = sent.map_err(|e| e.to_string()).flatten() {
            tracing::debug!(error, "cannot send an answer");
        }
    }

    async fn publish(&self, caller: &Caller, answer: Result<Bytes, ServiceError>) -> Result<(), String> {
        let Some(reply) = caller.reply.clone() else { return Ok(()) };
        let max = self.max_payload();
        let published = match answer.and_then(|payload| fits(payload, max)) {
            Ok(payload) => self.client.publish(reply, payload).await,
            Err(error) => self.client.publish_with_headers(reply, error.headers(), Bytes::new()).await,
        };
        published.map_err(|e| e.to_string())?;
        self.client.flush().await.map_err(|e| e.to_string())
    }
}

fn fits(payload: Bytes, max: usize) -> Result<Bytes, ServiceError> {
    if payload.len() <= max {
        return Ok(payload);
    }
    let message = format!("the answer has {} bytes, and the server's max_payload is {max}", payload.len());
    Err(ServiceError::new(ErrorCode::TooLarge, message))
}
