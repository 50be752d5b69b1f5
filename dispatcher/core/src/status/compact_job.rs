//! The published state of an unfinished Job, in one allocation.
//!
//! The dispatcher keeps one for each unfinished Job, for the events of its pods. It keeps what these
//! events contain, and nothing else.

use serde::{Deserialize, Serialize};

use crate::contract::{
    event::Stall,
    job::{JobState, Presence},
    job_status::JobStatus,
    names::{JobName, RequestId, TemplateName},
    submitter::Submitter,
    trace::Trace,
};

/// A state of a Job that exists.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct CompactJob {
    pub(super) resource_version: u64,
    /// The number of pods that ended.
    pub(super) pods_ended: u32,
    /// The status as JSON, then [`Identity`] as JSON without names of fields.
    text: Box<str>,
    status_bytes: u32,
    truncated: bool,
    suspended: bool,
}

/// What does not change while the Job exists.
#[derive(Serialize, Deserialize)]
struct Identity(
    TemplateName,
    JobName,
    String,
    String,
    RequestId,
    u64,
    String,
    Option<String>,
    Option<String>,
    Option<Box<Submitter>>,
);

impl CompactJob {
    /// `None` if the status has 4 GiB or more, which no API server stores.
    pub(super) fn new(job: &JobState) -> Option<Self> {
        let identity = Identity(
            job.template.clone(),
            job.name.clone(),
            job.namespace.clone(),
            job.uid.clone(),
            job.request_id.clone(),
            job.request_seq,
            job.request_hash.clone(),
            job.trace.as_ref().map(Trace::traceparent),
            job.trace.as_ref().and_then(|trace| trace.tracestate().map(str::to_owned)),
            job.submitter.clone(),
        );
        let status = job.status.text();
        let text = format!("{status}{}", serde_json::to_string(&identity).ok()?);
        Some(Self {
            resource_version: job.resource_version,
            pods_ended: job.status.pods_ended(),
            text: text.into(),
            status_bytes: status.len().try_into().ok()?,
            truncated: job.status.is_truncated(),
            suspended: job.status.suspension().is_some(),
        })
    }

    /// The state, as far as the events of pods contain it.
    pub(super) fn job(&self) -> Option<JobState> {
        let (status, identity) = self.parts()?;
        let Identity(
            template,
            name,
            namespace,
            uid,
            request_id,
            request_seq,
            request_hash,
            parent,
            state,
            submitter,
        ) = serde_json::from_str(identity).ok()?;
        Some(JobState {
            template,
            name,
            namespace,
            uid,
            request_id,
            request_seq,
            request_hash,
            resource_version: self.resource_version,
            retired: false,
            confirmed: false,
            presence: Presence::Present,
            cancelled: false,
            creation_time: None,
            trace: Trace::from_headers(parent.as_deref(), state.as_deref()),
            template_hash: None,
            submitter,
            status: JobStatus::published(serde_json::from_str(status).ok()?, self.truncated),
        })
    }

    /// Why the Job is suspended; `None` if it is not.
    pub(super) fn suspension(&self) -> Option<Stall> {
        if self.suspended { self.job()?.suspension() } else { None }
    }

    fn parts(&self) -> Option<(&str, &str)> {
        self.text.split_at_checked(usize::try_from(self.status_bytes).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        contract::event::{Attempt, EventType},
        status::{
            event_body::{EventBody, status_event},
            reconcile::resource_version,
            subject::LastEvent,
        },
        testing::a_job,
    };

    fn statuses() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "(?s).{0,30}".prop_map(Value::from),
        ];
        let value = leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::hash_map("[a-z{}\"]{1,8}", inner, 0..4)
                    .prop_map(|fields| fields.into_iter().collect()),
            ]
        });
        prop::collection::hash_map("[a-zA-Z]{1,12}", value, 0..5)
            .prop_map(|fields| fields.into_iter().collect())
    }

    fn suspended() -> Value {
        json!({"conditions": [{"type": "Suspended", "status": "True", "reason": "R", "message": "é\n"}]})
    }

    proptest! {
        #[test]
        fn compact_job_yields_the_events_of_the_full_one(
            status in prop_oneof![statuses(), Just(suspended()), Just(Value::Null)],
            version in any::<u64>(), seq in any::<u64>(), truncated: bool,
            (namespace, hash) in ("[a-z]{0,20}", "(?s).{0,70}"),
            id in "[^\\p{Cc}]{1,40}",
            traced in prop::option::of(prop::option::of("[a-z]{1,5}=[a-z]{1,5}")),
            user in prop::option::of(prop::option::of("[a-zé]{1,9}")),
        ) {
            let trace = |state: Option<String>| Trace::from_headers(
                Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-03"), state.as_deref());
            let full = JobState {
                namespace,
                request_id: RequestId::try_from(id).unwrap(),
                request_seq: seq,
                request_hash: hash,
                trace: traced.and_then(trace),
                submitter: user.map(|user| Box::new(Submitter { account: "A\"".into(), user })),
                status: JobStatus::published(status.clone(), truncated),
                ..a_job("u", version, json!({}))
            };
            let compact = CompactJob::new(&full).unwrap();
            let job = compact.job().unwrap();
            prop_assert_eq!(compact.suspension(), full.suspension());
            prop_assert_eq!(compact.pods_ended, full.status.pods_ended());
            prop_assert_eq!((&job.trace, &job.request_hash), (&full.trace, &full.request_hash));
            let last = LastEvent { uid: "u".into(), resource_version: 4, event: EventType::Attempt };
            prop_assert_eq!(resource_version(Some(&last), &job), resource_version(Some(&last), &full));
            let body = EventBody::Attempt(Box::new(Attempt { pod: "p".into(), ..Attempt::default() }));
            prop_assert_eq!(body.size_hint(&job), body.size_hint(&full));
            prop_assert_eq!(status_event(&job, &last, &body, "t"), status_event(&full, &last, &body, "t"));
        }
    }
}
