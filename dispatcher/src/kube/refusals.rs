//! Reports trouble with a single Job: a Kubernetes Event on the Job, a metric and a log line.
//!
//! Such trouble never makes the dispatcher unready: other Jobs are not affected.

use std::time::Duration;

use dispatcher_core::contract::job::JobState;
use k8s_openapi::{
    api::{
        batch::v1::Job,
        core::v1::{Event, EventSource, ObjectReference},
    },
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};
use kube::{
    Resource,
    api::{ObjectMeta, PostParams},
};

use crate::{
    kube::{JobClient, call_within},
    telemetry::metrics::{Metrics, Operation},
};

/// The deadline of the call that creates a Kubernetes Event.
const DEADLINE: Duration = Duration::from_secs(3);
/// The longest text of a Kubernetes Event, in bytes.
const MAX_MESSAGE: usize = 1024;
/// The reporter of the Kubernetes Events.
const COMPONENT: &str = "dispatcher";

/// Reports refused operations on single Jobs.
#[derive(Clone)]
pub(crate) struct Refusals {
    client: JobClient,
    metrics: Metrics,
}

impl Refusals {
    /// Reports to the namespace of `client`.
    pub(crate) fn new(client: JobClient, metrics: Metrics) -> Self {
        Self { client, metrics }
    }

    /// Reports that `operation` on this Job was refused for this reason.
    pub(crate) async fn report(&self, job: &JobState, operation: Operation, reason: &str) {
        self.metrics.refused(&job.template, operation);
        let (template, name) = (job.template.as_ref(), job.name.as_ref());
        tracing::warn!(template, job = name, operation = operation.as_str(), reason, "job operation refused");
        let event = event(job, operation, reason, Timestamp::now());
        let (events, params) = (self.client.events(), PostParams::default());
        // 409: the Event of an earlier refusal still exists.
        if let Err(error) = call_within(DEADLINE, events.create(&params, &event)).await
            && error.code() != Some(409)
        {
            tracing::debug!(job = name, %error, "cannot create a Kubernetes Event");
        }
    }
}

/// The Event has the same name for each refusal of an operation on a Job, so that a Job has one at most.
fn event(job: &JobState, operation: Operation, reason: &str, now: Timestamp) -> Event {
    let end = reason.floor_char_boundary(MAX_MESSAGE);
    let message = format!("{}: {}", failure(operation), reason.get(..end).unwrap_or_default());
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{}.{}.{}", job.name, job.uid, operation.as_str())),
            namespace: Some(job.namespace.clone()),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: Some(Job::api_version(&()).into_owned()),
            kind: Some(Job::kind(&()).into_owned()),
            name: Some(job.name.to_string()),
            namespace: Some(job.namespace.clone()),
            uid: Some(job.uid.clone()),
            ..ObjectReference::default()
        },
        reason: Some(reason_of(operation).to_owned()),
        message: Some(message),
        // Not a warning: the watch takes warnings about a Job for the reason why no pod runs.
        type_: Some("Normal".to_owned()),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        count: Some(1),
        source: Some(EventSource { component: Some(COMPONENT.to_owned()), host: None }),
        reporting_component: Some(COMPONENT.to_owned()),
        ..Event::default()
    }
}

/// The reason of the Kubernetes Event.
fn reason_of(operation: Operation) -> &'static str {
    match operation {
        Operation::Retire => "RetireRefused",
        Operation::Restore => "RestoreRefused",
        Operation::Unlabel => "UnlabelRefused",
        Operation::Delete => "CancelRefused",
        Operation::Publish => "PublishRefused",
    }
}

/// What the dispatcher cannot do.
fn failure(operation: Operation) -> &'static str {
    match operation {
        Operation::Retire => "cannot set the TTL and the outcome label",
        Operation::Restore => "cannot restore the labels and annotations that the dispatcher needs",
        Operation::Unlabel => "cannot remove the outcome label, which belongs to another Job",
        Operation::Delete => "cannot delete the cancelled Job",
        Operation::Publish => "cannot publish a status event",
    }
}

#[cfg(test)]
mod tests {
    use dispatcher_core::testing::a_job;
    use serde_json::json;

    use super::*;

    #[test]
    fn event_names_the_job_and_is_bounded() {
        let reason = "é".repeat(2000);
        let event = event(&a_job("u", 1, json!({})), Operation::Retire, &reason, Timestamp::UNIX_EPOCH);
        assert_eq!(event.metadata.name.as_deref(), Some("simple-job-1.u.retire"));
        assert_eq!(event.involved_object.uid.as_deref(), Some("u"));
        assert_eq!(event.involved_object.kind.as_deref(), Some("Job"));
        assert!(event.message.unwrap().len() <= MAX_MESSAGE + 100);
    }
}
