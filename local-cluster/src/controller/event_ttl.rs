//! Deletes expired Kubernetes Events, which a real API server does by a TTL in etcd.

use std::{future::Future, time::Duration};

use k8s_openapi::{
    api::core::v1::Event,
    jiff::{SignedDuration, Timestamp},
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams},
};
use tokio::time::{sleep, timeout};

/// The TTL of an Event, the default of Kubernetes' `--event-ttl`.
const EVENT_TTL: SignedDuration = SignedDuration::from_hours(1);
/// The pause between two passes.
const INTERVAL: Duration = Duration::from_secs(60);
/// The time limit of one API call.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Deletes expired Events until it is dropped. The next pass retries failed deletes.
pub(super) async fn run(client: Client) {
    loop {
        sleep(INTERVAL).await;
        delete_expired(&client, Timestamp::now()).await;
    }
}

async fn delete_expired(client: &Client, now: Timestamp) {
    let all: Api<Event> = Api::all(client.clone());
    let Some(events) = call(all.list(&ListParams::default())).await else {
        return;
    };
    for event in events.items.iter().filter(|event| is_expired(event, now)) {
        let api: Api<Event> = Api::namespaced(client.clone(), &event.namespace().unwrap_or_default());
        call(api.delete(&event.name_any(), &DeleteParams::default())).await;
    }
}

fn is_expired(event: &Event, now: Timestamp) -> bool {
    let created = event.metadata.creation_timestamp.as_ref();
    let last = event.last_timestamp.as_ref().or(created);
    last.is_some_and(|last| now.duration_since(last.0) > EVENT_TTL)
}

async fn call<T>(request: impl Future<Output = kube::Result<T>>) -> Option<T> {
    match timeout(CALL_TIMEOUT, request).await {
        Ok(result) => {
            result.inspect_err(|error| tracing::debug!(%error, "failed to delete expired Events")).ok()
        }
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{LocalCluster, Options};

    #[tokio::test]
    async fn event_is_deleted_after_an_hour() {
        let client = LocalCluster::new(Options::default()).client("default");
        let api: Api<Event> = Api::default_namespaced(client.clone());
        for (name, time) in [("old", "2026-01-01T00:00:00Z"), ("new", "2026-01-01T01:00:00Z")] {
            let event = json!({
                "metadata": {"name": name, "namespace": "default"}, "lastTimestamp": time,
                "involvedObject": {"kind": "Job", "name": "a", "namespace": "default"},
            });
            api.create(&kube::api::PostParams::default(), &serde_json::from_value(event).unwrap())
                .await
                .unwrap();
        }
        delete_expired(&client, "2026-01-01T01:00:01Z".parse().unwrap()).await;
        let left: Vec<_> =
            api.list(&ListParams::default()).await.unwrap().iter().map(ResourceExt::name_any).collect();
        assert_eq!(left, ["new"]);
    }
}
