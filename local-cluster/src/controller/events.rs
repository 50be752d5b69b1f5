//! Records Kubernetes Events, which `kubectl describe` shows.

use std::time::Duration;

use k8s_openapi::{
    api::core::v1::{Event, EventSource, ObjectReference},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
    jiff::Timestamp,
};
use kube::{Api, Client, api::PostParams};
use tokio::time::timeout;

/// The time limit of one API call. A lost Event affects no decision.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// The content of an Event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Note {
    kind: &'static str,
    reason: String,
    message: String,
}

impl Note {
    pub(crate) fn normal(reason: &str, message: &str) -> Self {
        Self { kind: "Normal", reason: reason.to_owned(), message: message.to_owned() }
    }

    pub(crate) fn warning(reason: &str, message: &str) -> Self {
        Self { kind: "Warning", reason: reason.to_owned(), message: message.to_owned() }
    }
}

/// Records Events in the name of one component.
#[derive(Clone)]
pub(crate) struct Recorder {
    client: Client,
    component: &'static str,
}

impl Recorder {
    pub(crate) fn new(client: Client, component: &'static str) -> Self {
        Self { client, component }
    }

    /// Records an Event. A failure is only logged, as in Kubernetes.
    pub(crate) async fn record(&self, object: &ObjectReference, note: Note) {
        let Note { kind, reason, message } = note;
        let namespace = object.namespace.as_deref().unwrap_or_default();
        let (now, name) = (Timestamp::now(), object.name.as_deref().unwrap_or_default());
        let event = Event {
            metadata: ObjectMeta {
                name: Some(format!("{name}.{:x}", now.as_nanosecond())),
                namespace: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            },
            involved_object: object.clone(),
            type_: Some(kind.to_owned()),
            reason: Some(reason),
            message: Some(message),
            source: Some(EventSource { component: Some(self.component.to_owned()), host: None }),
            reporting_component: Some(self.component.to_owned()),
            first_timestamp: Some(Time(now)),
            last_timestamp: Some(Time(now)),
            count: Some(1),
            ..Event::default()
        };
        let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        match timeout(CALL_TIMEOUT, api.create(&PostParams::default(), &event)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(name, %error, "failed to record Event"),
            Err(_) => tracing::warn!(name, "timed out recording Event"),
        }
    }
}
