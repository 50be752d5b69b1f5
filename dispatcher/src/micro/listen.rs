//! One subscription for all who wait: the status subjects as `JOB_STATUS` republishes them, and the notices of rejections.

use async_nats::{Client, Message, Subscriber, client::FlushError};
use futures::StreamExt;

use crate::micro::waiting::Waiting;
use dispatcher_core::contract::{
    event::EventType,
    headers::{JOB_EVENT, JOB_REQUEST_HASH, JOB_REQUEST_ID},
    names::{RequestId, parse_status_subject},
    rejection::RejectedNotice,
};

/// Every status subject, and `_rejected`.
const SUBJECTS: &str = "jobs.*.status.*";

/// Subscribes; from the return on nothing is missed but by a connection that breaks, after which the callers look.
///
/// # Errors
/// Where the connection is closed for good.
pub async fn subscribe(client: &Client) -> Result<Subscriber, String> {
    let subscriber = client.subscribe(SUBJECTS).await.map_err(|e| e.to_string())?;
    client.flush().await.map_err(|e: FlushError| e.to_string())?;
    Ok(subscriber)
}

/// PodState the callers what they wait for, until the subscription ends.
pub async fn listen(mut subscriber: Subscriber, waiting: Waiting) {
    while let Some(message) = subscriber.next().await {
        if !waiting.is_empty() {
            hear(&message, &waiting);
        }
    }
}

fn hear(message: &Message, waiting: &Waiting) {
    let header = |name: &str| message.headers.as_ref()?.get(name).map(|value| value.as_str().to_owned());
    if let Some((template, _)) = parse_status_subject(&message.subject) {
        let Some(id) = header(JOB_REQUEST_ID).and_then(|id| RequestId::try_from(id).ok()) else { return };
        let event = header(JOB_EVENT).as_deref().and_then(EventType::parse);
        waiting.event(&template, &id, event, header(JOB_REQUEST_HASH).as_deref(), &message.payload);
    } else if let Ok(notice) = serde_json::from_slice::<RejectedNotice>(&message.payload)
        && let Ok(id) = RequestId::try_from(notice.request_id.as_str())
    {
        waiting.rejected(&id, &notice);
    }
}
