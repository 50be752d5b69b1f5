//! A NATS client that requests Jobs and reads their status events.

use async_nats::{Client, jetstream};
use dispatcher_tests::until;
use dispatcher_tests::wait::TIMEOUT;
use serde_json::Value;

/// A user of the dispatcher.
pub(crate) struct User {
    pub(crate) jetstream: jetstream::Context,
}

impl User {
    pub(crate) fn new(client: Client) -> Self {
        Self { jetstream: jetstream::new(client) }
    }

    pub(crate) async fn request(&self, template: &str, payload: &Value) {
        let sent =
            self.jetstream.publish(format!("jobs.{template}.create"), payload.to_string().into()).await;
        sent.unwrap().await.expect("the request is not stored");
    }

    /// All stored status events of a Job.
    async fn history(&self, template: &str, name: &str) -> Vec<Value> {
        let Ok(stream) = self.jetstream.get_stream_no_info("JOB_STATUS").await else { return vec![] };
        let subject = format!("jobs.{template}.status.{name}");
        let (mut events, mut from) = (vec![], 1);
        while let Ok(message) = stream.direct_get_next_for_subject(subject.as_str(), Some(from)).await {
            from = message.sequence + 1;
            events.push(serde_json::from_slice(&message.payload).unwrap());
        }
        events
    }

    /// Waits for an event of this type and returns it.
    pub(crate) async fn event(&self, template: &str, name: &str, type_: &str) -> Value {
        until(&format!("{type_} of {name}"), TIMEOUT, || async {
            let events = self.history(template, name).await;
            events.iter().find(|event| event["type"] == type_).cloned().ok_or(events)
        })
        .await
    }

    /// Waits for the outcome of a Job. It must be the only one, and the last event.
    pub(crate) async fn outcome(&self, template: &str, name: &str) -> Value {
        let events = until(&format!("the outcome of {name}"), TIMEOUT, || async {
            let events = self.history(template, name).await;
            let is_finished = events.last().is_some_and(|last| last["type"] == "OUTCOME");
            if is_finished { Ok(events) } else { Err(events.last().cloned()) }
        })
        .await;
        assert_eq!(events.iter().filter(|event| event["type"] == "OUTCOME").count(), 1, "{events:?}");
        assert_eq!(events[0]["type"], "ADDED", "{events:?}");
        events.last().unwrap()["outcome"].clone()
    }
}
