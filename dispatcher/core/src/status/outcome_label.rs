//! Whether the outcome label of a Job is genuine. A Job with the label is in no watch, so a label that
//! is not genuine would hide the Job.

use crate::{
    contract::job::{JobObject, LABEL_TEMPLATE, OutcomeLabel},
    status::subject::LastEvent,
};

/// Whether the watches select a Job with this metadata.
#[must_use]
pub fn is_watched(found: &JobObject) -> bool {
    let labels = found.metadata.labels.as_ref();
    let has_template = labels.is_some_and(|labels| labels.contains_key(LABEL_TEMPLATE));
    has_template && OutcomeLabel::of(&found.metadata) == OutcomeLabel::None
}

/// Whether the outcome label of the Job with this `uid` does not belong to it: it was copied from
/// another Job, set by a user, or its outcome is lost. `last` is the last event of the Job's subject,
/// and `newest` the last sequence of `JOB_STATUS`; both are read through the stream's leader.
#[must_use]
pub fn is_foreign(
    label: OutcomeLabel,
    (uid, is_finished): (&str, bool),
    last: Option<&LastEvent>,
    newest: u64,
) -> bool {
    // A Job is retired only with a final condition.
    let is_retirable = is_finished;
    let is_stored = match (label, last) {
        (OutcomeLabel::None, _) => return false,
        // Without a record, the dispatcher did not set it. A finished Job gets its own label again.
        (OutcomeLabel::Unbound, _) => false,
        // The stream lost messages, so that this sequence is not assigned yet.
        (OutcomeLabel::Bound(sequence), _) if sequence > newest => false,
        (OutcomeLabel::Bound(_), Some(last)) => last.uid == uid && last.is_final(),
        // The events have expired or were purged.
        (OutcomeLabel::Bound(_), None) => true,
    };
    !(is_retirable && is_stored)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::contract::event::EventType;

    fn last(uid: &str, event: EventType) -> LastEvent {
        LastEvent { uid: uid.to_owned(), resource_version: 5, event }
    }

    fn foreign(label: OutcomeLabel, last: Option<LastEvent>) -> bool {
        is_foreign(label, ("u", true), last.as_ref(), 9)
    }

    #[test]
    fn label_is_genuine_if_the_outcome_of_the_uid_is_the_last_event() {
        for label in [OutcomeLabel::Bound(9), OutcomeLabel::Bound(1)] {
            assert!(!foreign(label, Some(last("u", EventType::Outcome))), "{label:?}");
            for event in [EventType::Added, EventType::Modified, EventType::Deleted] {
                assert!(foreign(label, Some(last("u", event))), "{label:?} {event:?}");
            }
            assert!(foreign(label, Some(last("another", EventType::Outcome))), "{label:?}");
        }
    }

    #[test]
    fn label_without_a_record_of_the_uid_is_foreign() {
        assert!(!foreign(OutcomeLabel::Bound(9), None), "the events have expired");
        for last in [None, Some(last("u", EventType::Outcome)), Some(last("another", EventType::Outcome))] {
            assert!(foreign(OutcomeLabel::Unbound, last));
        }
    }

    #[test]
    fn record_beyond_the_end_of_the_stream_means_lost_messages() {
        assert!(foreign(OutcomeLabel::Bound(10), None));
        // Another outcome of the Job cannot exist, but the record is not its own.
        assert!(foreign(OutcomeLabel::Bound(10), Some(last("u", EventType::Outcome))));
    }

    #[test]
    fn label_of_a_job_without_a_final_condition_is_foreign() {
        let outcome = last("u", EventType::Outcome);
        for label in [OutcomeLabel::Bound(9), OutcomeLabel::Unbound] {
            assert!(is_foreign(label, ("u", false), Some(&outcome), 9), "{label:?}");
            assert!(is_foreign(label, ("u", false), None, 9), "{label:?}");
        }
    }

    #[test]
    fn job_without_the_label_has_no_foreign_one() {
        assert!(!is_foreign(OutcomeLabel::None, ("u", false), None, 0));
        assert!(!foreign(OutcomeLabel::None, Some(last("another", EventType::Added))));
    }

    #[test]
    fn watches_select_jobs_with_a_template_and_without_an_outcome() {
        let job = |labels| -> JobObject {
            serde_json::from_value(json!({"metadata": {"uid": "u", "labels": labels}, "spec": {}})).unwrap()
        };
        let (template, outcome) = ("natsjobs.dev/template", "natsjobs.dev/outcome");
        assert!(is_watched(&job(json!({template: "simple"}))));
        assert!(!is_watched(&job(json!({template: "simple", outcome: "Complete"}))));
        assert!(!is_watched(&job(json!({template: "simple", outcome: ""}))));
        assert!(!is_watched(&job(json!({}))));
    }
}
