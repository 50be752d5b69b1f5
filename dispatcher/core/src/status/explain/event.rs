//! Reads Warnings from Kubernetes Events, for causes that appear in no status or condition.
//!
//! A Warning of any reason counts: new versions, drivers and controllers add reasons.
//! Whether it keeps a pod from starting depends on the pod, not on the Event.

use k8s_openapi::{api::core::v1::Event, jiff::Timestamp};

use crate::{
    contract::{event::Stall, names::JobName, text},
    status::pod_observation::{PodObservation, PodState},
};

/// The field selector of the watch: Warnings, without the two frequent ones that always repeat the
/// status of the pod.
pub const FIELDS: &str = "type=Warning,reason!=BackOff,reason!=FailedScheduling";

/// The subject of a Kubernetes Event, with its content.
#[derive(Debug, Clone, PartialEq)]
pub enum EventFinding {
    /// A Job.
    Job(PodObservation),
    /// The pod with this uid.
    Pod(String, PodState),
}

/// Reads a Kubernetes Event. Returns `None` if it is no Warning about a Job or a pod.
#[must_use]
pub fn finding(event: &Event) -> Option<EventFinding> {
    let object = &event.involved_object;
    let (uid, reason) = (object.uid.clone()?, text::reason(event.reason.as_deref())?);
    if event.type_.as_deref() != Some("Warning") {
        return None;
    }
    let at = event_time(event);
    match object.kind.as_deref()? {
        "Job" => {
            let reason = match reason.as_str() {
                "FailedCreate" => refusal_reason(event.message.as_deref().unwrap_or_default()).to_owned(),
                _ => reason,
            };
            let stall = Stall { reason, message: message(event) };
            let name = JobName::try_from(object.name.as_deref()?).ok()?;
            let state = PodState::Warning { pod: None, at, stall };
            Some(EventFinding::Job(PodObservation { template: None, name, uid, state }))
        }
        "Pod" => {
            let stall = Stall { reason, message: message(event) };
            Some(EventFinding::Pod(uid.clone(), PodState::Warning { pod: Some(uid), at, stall }))
        }
        _ => None,
    }
}

fn message(event: &Event) -> String {
    text::message(event.message.as_deref()).unwrap_or_default()
}

/// Which check refused the pod. Kubernetes has one reason for all, so its message has to tell.
///
/// Only the start of the message is Kubernetes' own. The rest can quote a manifest or a client.
fn refusal_reason(message: &str) -> &'static str {
    let message = message.strip_prefix("Error creating: ").unwrap_or(message);
    let message = strip_forbidden(message).unwrap_or(message);
    let is = |start: &str| message.starts_with(start);
    if is("exceeded quota: ") || is("failed quota: ") {
        "QuotaExceeded"
    } else if is("violates PodSecurity ") {
        "PodSecurity"
    } else if is("admission webhook \"") || is("ValidatingAdmissionPolicy '") {
        "AdmissionDenied"
    } else {
        "FailedCreate"
    }
}

/// The message after `pods "<name>" is forbidden: `.
fn strip_forbidden(message: &str) -> Option<&str> {
    let (_, rest) = message.strip_prefix("pods \"")?.split_once('"')?;
    rest.strip_prefix(" is forbidden: ")
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
            EventFinding::Job(PodObservation { state: PodState::Warning { stall, .. }, .. })
            | EventFinding::Pod(_, PodState::Warning { stall, .. }) => stall,
            other => panic!("not a Warning: {other:?}"),
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
            // The words of another check, quoted by a policy, a webhook or a manifest.
            ("pods \"a\" is forbidden: no \"exceeded quota: q\"", "FailedCreate"),
            ("Error creating: Pod \"a\" is invalid: violates PodSecurity ", "FailedCreate"),
            ("admission webhook \"w\" denied the request: exceeded quota: q", "AdmissionDenied"),
        ] {
            assert_eq!(refusal_reason(message), reason);
        }
    }

    #[test]
    fn failed_mount_names_the_pod() {
        let Some(EventFinding::Pod(uid, PodState::Warning { at, stall, .. })) = finding(&events()["mount"])
        else {
            panic!("expected a finding about a pod")
        };
        assert_eq!(uid, "c4956380-3f8a-40fb-af09-626ba7c4f43b");
        assert_eq!(stall.reason, "FailedMount");
        assert!(stall.message.contains("secret \"nothere\" not found"));
        assert_eq!(at, "2026-11-25T01:23:15Z".parse::<Timestamp>().unwrap().as_second());
    }

    #[test]
    fn every_warning_about_a_pod_counts_whatever_its_reason() {
        for reason in ["FailedMapVolume", "FailedPrepareDynamicResources", "Unhealthy", "ReasonOfTomorrow"] {
            let mut event = events()["mount"].clone();
            event.reason = Some(reason.into());
            assert_eq!(stall(finding(&event).unwrap()).reason, reason);
        }
    }

    #[test]
    fn text_of_an_event_is_escaped() {
        let mut event = events()["mount"].clone();
        event.reason = Some("Failed\u{202e}".into());
        event.message = Some("a\u{202e}b\u{1b}[2J".into());
        let stall = stall(finding(&event).unwrap());
        assert_eq!((stall.reason.as_str(), stall.message.as_str()), ("Failed\\u202e", "a\\u202eb\\x1b[2J"));
    }

    #[test]
    fn normal_events_and_events_of_other_objects_are_ignored() {
        let mut event = events()["quota"].clone();
        event.type_ = Some("Normal".into());
        assert_eq!(finding(&event), None);
        let mut event = events()["quota"].clone();
        event.involved_object.kind = Some("Node".into());
        assert_eq!(finding(&event), None);
    }
}
