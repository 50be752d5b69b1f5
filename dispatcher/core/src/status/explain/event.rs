//! Kubernetes' Events, where no condition tells: pods that cannot be made (a quota, Pod Security, an admission webhook), and
//! volumes or sandboxes that a pod waits for. Pure.

use k8s_openapi::api::core::v1::Event;

use crate::{
    contract::{event::Stall, names::JobName, text},
    status::pod_tracker::{PodObservation, PodState},
};

/// What the watch of Events asks for: warnings, but for those that a pod's status tells better.
pub const FIELDS: &str = "type=Warning,reason!=BackOff,reason!=Failed,reason!=FailedScheduling";

/// Words of Events of pods that say why it does not start.
const OF_PODS: [&str; 4] =
    ["FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox", "FailedCreatePodContainer"];

/// Whom an Event concerns, and what it says.
#[derive(Debug, Clone, PartialEq)]
pub enum EventFinding {
    /// A Job.
    Job(PodObservation),
    /// The pod with this uid.
    Pod(String, PodState),
}

/// Reads an Event; `None` where it says nothing of a Job.
pub fn word(event: &Event) -> Option<EventFinding> {
    let reason = event.reason.as_deref()?;
    let object = &event.involved_object;
    let message = text::message(event.message.as_deref()).unwrap_or_default();
    let tells = |reason: &str| PodState::Refused {
        at: at(event),
        stall: Stall { reason: reason.to_owned(), message: message.clone() },
    };
    match object.kind.as_deref()? {
        "Job" if reason == "FailedCreate" => Some(EventFinding::Job(PodObservation {
            template: None,
            name: JobName::try_from(object.name.as_deref()?).ok()?,
            uid: object.uid.clone()?,
            tells: tells(refusal(&message)),
        })),
        "Pod" if OF_PODS.contains(&reason) => Some(EventFinding::Pod(object.uid.clone()?, tells(reason))),
        _ => None,
    }
}

/// Who refused a pod, by the words of the API server: for this it has no reason of its own.
fn refusal(message: &str) -> &'static str {
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

/// When it was last seen, in seconds since 1970.
pub fn at(event: &Event) -> i64 {
    let series =
        event.series.as_ref().and_then(|series| series.last_observed_time.as_ref()).map(|time| time.0);
    let last = event.last_timestamp.as_ref().map(|time| time.0);
    let micro = event.event_time.as_ref().map(|time| time.0);
    let made = event.metadata.creation_timestamp.as_ref().map(|time| time.0);
    series.or(last).or(micro).or(made).map_or(0, |time| time.as_second())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Events of a real cluster.
    fn events() -> BTreeMap<String, Event> {
        serde_json::from_str(include_str!("events.json")).unwrap()
    }

    fn stall(word: EventFinding) -> Stall {
        match word {
            EventFinding::Job(PodObservation { tells: PodState::Refused { stall, .. }, .. })
            | EventFinding::Pod(_, PodState::Refused { stall, .. }) => stall,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_pod_that_cannot_be_made_is_told_of_its_job_with_who_refused_it() {
        let events = events();
        let Some(EventFinding::Job(sign)) = word(&events["quota"]) else { panic!("of a Job") };
        assert_eq!((sign.name.as_ref(), sign.template), ("quota", None));
        assert_eq!(sign.uid, "340db300-3a51-47ab-877e-b0ae7641baf9");
        let quota = stall(word(&events["quota"]).unwrap());
        assert_eq!(quota.reason, "QuotaExceeded");
        assert!(quota.message.contains("exceeded quota: q, requested: pods=1"), "{}", quota.message);
        assert_eq!(stall(word(&events["psa"]).unwrap()).reason, "PodSecurity");
        assert_eq!(refusal("admission webhook \"a.example.org\" denied the request: no"), "AdmissionDenied");
        assert_eq!(
            refusal("ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no"),
            "AdmissionDenied"
        );
        assert_eq!(refusal("error looking up service account jobs/no"), "FailedCreate");
    }

    #[test]
    fn a_volume_that_cannot_be_mounted_is_told_of_its_pod() {
        let Some(EventFinding::Pod(uid, PodState::Refused { at, stall })) = word(&events()["mount"]) else {
            panic!("of a pod")
        };
        assert_eq!(uid, "c4956380-3f8a-40fb-af09-626ba7c4f43b");
        assert_eq!(stall.reason, "FailedMount");
        assert!(stall.message.contains("secret \"nothere\" not found"));
        assert_eq!(at, "2026-11-25T01:23:15Z".parse::<k8s_openapi::jiff::Timestamp>().unwrap().as_second());
    }

    #[test]
    fn other_events_say_nothing() {
        let mut event = events()["quota"].clone();
        event.reason = Some("BackoffLimitExceeded".into());
        assert_eq!(word(&event), None);
        event.involved_object.kind = Some("Node".into());
        assert_eq!(word(&event), None);
    }
}
