//! The way to NATS: waits for JetStream, and shows every event, as any client could.

use std::time::Duration;

use async_nats::{Client, ConnectOptions, jetstream};
use futures::StreamExt;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::dev::lines;

/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(50);
/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(5);

/// A connection, once JetStream answers on it; the caller's deadline ends the waiting.
pub(super) async fn connect(url: &str) -> Client {
    loop {
        let options = ConnectOptions::new().name("dispatcher dev").connection_timeout(ANSWER);
        if let Ok(client) = options.max_reconnects(None).connect(url).await {
            let context = jetstream::ContextBuilder::new().timeout(ANSWER).build(client.clone());
            if context.query_account().await.is_ok() {
                return client;
            }
        }
        sleep(PAUSE).await;
    }
}

/// Shows what is said of Jobs until `stop`, and then what has come already.
///
/// # Errors
/// Where the subscription ends.
pub(super) async fn listen(
    client: Client,
    show: impl Fn(&str),
    stop: CancellationToken,
) -> Result<(), String> {
    let mut messages = client.subscribe("jobs.*.status.>").await.map_err(|error| error.to_string())?;
    loop {
        tokio::select! {
            biased;
            message = messages.next() => match message {
                Some(message) => show(&lines::event(&message.subject, &message.payload)),
                None => return Err("the subscription has ended".to_owned()),
            },
            () = stop.cancelled() => return Ok(()),
        }
    }
}
