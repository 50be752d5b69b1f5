//! Reads why no pod runs from Kubernetes Events, for causes that appear in no status or condition.
//!
//! These are pods that cannot be created (quota, Pod Security, admission webhook) and pods that
//! wait for a volume or a sandbox.

use k8s_openapi::{api::core::v1::Event, jiff::Timestamp};

use crate::{
    contract::{event::Stall, names::JobName, text},
    status::pod_tracker::{PodObservation, PodState},
};

/// The field selector of the watch: warnings, except those that repeat the status of a pod.
pub const FIELDS: &str = "type=Warning,reason!=BackOff,reason!=Failed,reason!=FailedScheduling";

/// The reasons of Events that explain why a pod does not start.
const POD_REASONS: [&str; 4] =
    ["FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox", "FailedCreatePodContainer"];

/// The subject of a Kubernetes Event, with its content.
#[derive(Debug, Clone, PartialEq)]
pub enum EventFinding {
    /// A Job.
    Job(PodObservation),
    /// The pod with this uid.
    Pod(String, PodState),
}

/// Reads a Kubernetes Event. Returns `None` if it does not explain why a pod does not run.
#[must_use]
pub fn finding(event: &Event) -> Option<EventFinding> {
    let reason = event.reason.as_deref()?;
    let object = &event.involved_object;
    let message = text::message(event.message.as_deref()).unwrap_or_default();
    let refused = |reason: &str| PodState::Refused {
        at: event_time(event),
        stall: Stall { reason: reason.to_owned(), message: message.clone() },
    };
    match object.kind.as_deref()? {
        "Job" if reason == "FailedCreate" => Some(EventFinding::Job(PodObservation {
            template: None,
            name: JobName::try_from(object.name.as_deref()?).ok()?,
            uid: object.uid.clone()?,
            state: refused(refusal_reason(&message)),
        })),
        "Pod" if POD_REASONS.contains(&reason) => {
            Some(EventFinding::Pod(object.uid.clone()?, refused(reason)))
        }
        _ => None,
    }
}

/// Which check refused the pod. Kubernetes uses one reason for all, so the message has to tell.
fn refusal_reason(message: &str) -> &'static str {
    if message.contains("exceeded quota") || message.contains("failed quota") {
        "QuotaExceeded"
    } else if message.contains("violates PodSecurity") {
        "PodSecurity"
    } else if message.contains("admission webhook") || message.contains("ValidatingAdmissionPolicy") {
        "AdmissionDenied"
    } else {
        "FailedCreate"
    }
}

/// When the Event last occurred, in seconds since 1970.
#[must_use]
pub fn event_time(event: &Event) -> i64 {
    let series =
        event.series.as_ref().and_then(|series| series.last_observed_time.as_ref()).map(|time| time.0);
    let last = event.last_timestamp.as_ref().map(|time| time.0);
    let micro = event.event_time.as_ref().map(|time| time.0);
    let created = event.metadata.creation_timestamp.as_ref().map(|time| time.0);
    series.or(last).or(micro).or(created).map_or(0, Timestamp::as_second)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Events captured from a real cluster.
    fn events() -> BTreeMap<String, Event> {
        serde_json::from_str(include_str!("events.json")).unwrap()
    }

    fn stall(finding: EventFinding) -> Stall {
        match finding {
            EventFinding::Job(PodObservation { state: PodState::Refused { stall, .. }, .. })
            | EventFinding::Pod(_, PodState::Refused { stall, .. }) => stall,
            other => panic!("not a refused pod: {other:?}"),
        }
    }

    #[test]
    fn failed_create_names_the_job_and_the_check_that_refused_the_pod() {
        let events = events();
        let Some(EventFinding::Job(observation)) = finding(&events["quota"]) else {
            panic!("expected a finding about a Job")
        };
        assert_eq!((observation.name.as_ref(), observation.template), ("quota", None));
        assert_eq!(observation.uid, "340db300-3a51-47ab-877e-b0ae7641baf9");
        let quota = stall(finding(&events["quota"]).unwrap());
        assert_eq!(quota.reason, "QuotaExceeded");
        assert!(quota.message.contains("exceeded quota: q, requested: pods=1"), "{}", quota.message);
        assert_eq!(stall(finding(&events["psa"]).unwrap()).reason, "PodSecurity");
        for (message, reason) in [
            ("admission webhook \"a.example.org\" denied the request: no", "AdmissionDenied"),
            ("ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no", "AdmissionDenied"),
            ("error looking up service account jobs/no", "FailedCreate"),
        ] {
            assert_eq!(refusal_reason(message), reason);
        }
    }

    #[test]
    fn failed_mount_names_the_pod() {
        let Some(EventFinding::Pod(uid, PodState::Refused { at, stall })) = finding(&events()["mount"])
        else {
            panic!("expected a finding about a pod")
        };
        assert_eq!(uid, "c4956380-3f8a-40fb-af09-626ba7c4f43b");
        assert_eq!(stall.reason, "FailedMount");
        assert!(stall.message.contains("secret \"nothere\" not found"));
        assert_eq!(at, "2026-11-25T01:23:15Z".parse::<Timestamp>().unwrap().as_second());
    }

    #[test]
    fn other_events_are_ignored() {
        let mut event = events()["quota"].clone();
        event.reason = Some("BackoffLimitExceeded".into());
        assert_eq!(finding(&event), None);
        event.involved_object.kind = Some("Node".into());
        assert_eq!(finding(&event), None);
    }
}
