//! A subscription that outlives the clients of its connection.

use std::time::Duration;

use async_nats::{Client, Message, Subscriber};
use futures::{StreamExt, stream, stream::BoxStream};
use tokio_util::sync::CancellationToken;

use crate::nats::connection::Connection;

/// How often a subscription that failed is tried again, unless the client is replaced earlier.
const RETRY: Duration = Duration::from_millis(500);
/// After `stop`: how long to wait for messages that are on their way.
const IN_FLIGHT: Duration = Duration::from_millis(250);

/// What to subscribe to.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    /// The subject.
    pub name: String,
    /// The queue group, if the subscribers share the messages.
    pub queue_group: Option<String>,
}

/// The messages of a subject. If the client ends, messages are lost until its replacement has
/// subscribed. After `stop`, the stream ends with the messages that have arrived.
pub(crate) async fn subscribe(
    connection: &Connection,
    subject: Subject,
    stop: CancellationToken,
) -> BoxStream<'static, Message> {
    let subscriber = subscribe_to_current(connection, &subject).await;
    let state = (connection.clone(), subject, subscriber, stop);
    let messages = stream::unfold(state, |(connection, subject, mut subscriber, stop)| async move {
        loop {
            let next = tokio::select! {
                next = subscriber.next() => next,
                () = stop.cancelled() => {
                    if let Err(error) = subscriber.unsubscribe().await {
                        tracing::debug!(%error, "cannot unsubscribe");
                    }
                    let next = tokio::time::timeout(IN_FLIGHT, subscriber.next()).await.ok().flatten();
                    return next.map(|message| (message, (connection, subject, subscriber, stop)));
                }
            };
            if let Some(message) = next {
                return Some((message, (connection, subject, subscriber, stop)));
            }
            subscriber = stop.run_until_cancelled(subscribe_to_current(&connection, &subject)).await?;
        }
    });
    messages.boxed()
}

/// Subscribes; if the client has ended, once it is replaced.
async fn subscribe_to_current(connection: &Connection, subject: &Subject) -> Subscriber {
    let mut changes = connection.changes();
    loop {
        match try_subscribe(&connection.client(), subject).await {
            Ok(subscriber) => return subscriber,
            Err(_) => {
                let _ = tokio::time::timeout(RETRY, changes.changed()).await;
            }
        }
    }
}

async fn try_subscribe(client: &Client, subject: &Subject) -> Result<Subscriber, String> {
    let Subject { name, queue_group } = subject.clone();
    let subscribed = match queue_group {
        Some(queue_group) => client.queue_subscribe(name, queue_group).await,
        None => client.subscribe(name).await,
    };
    subscribed.map_err(|e| e.to_string())
}
