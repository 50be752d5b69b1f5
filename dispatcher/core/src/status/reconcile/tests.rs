use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{contract::event::OutcomeResult, testing::a_job};

fn complete() -> Value {
    json!({"conditions": [{"type": "Complete", "status": "True"}]})
}

fn said(uid: &str, resource_version: u64, event: EventType) -> Option<LastEvent> {
    Some(LastEvent { uid: uid.into(), resource_version, event })
}

/// Does what `next` tells until nothing is left, as the writer does; returns the events as `(uid, type, rv)`.
fn play(said: &mut Option<LastEvent>, states: &[(JobState, Source)]) -> Vec<LastEvent> {
    let mut told = Vec::new();
    for (state, source) in states {
        let mut now = state.clone();
        for _ in 0..10 {
            let (about, event) = match next(said.as_ref(), &now, *source) {
                Some(Action::Publish(event, _)) => {
                    ((now.uid.clone(), resource_version(said.as_ref(), &now)), event)
                }
                Some(Action::ClosePrevious) => {
                    let earlier = said.clone().unwrap();
                    ((earlier.uid, earlier.resource_version), EventType::Outcome)
                }
                Some(Action::VerifyDeleted) => {
                    let gone = if now.presence == Presence::DeletedUnverified {
                        Presence::Deleted
                    } else {
                        Presence::Missing
                    };
                    now = now.with_presence(gone);
                    continue;
                }
                Some(Action::Retire) => {
                    now.retired = true;
                    continue;
                }
                Some(Action::PublishPending(_)) => panic!("a pod's word is the lane's to bring"),
                Some(Action::AwaitPrevious) | None => break,
            };
            let event = LastEvent { uid: about.0, resource_version: about.1, event };
            told.push(event.clone());
            *said = Some(event);
        }
        assert!(
            matches!(next(said.as_ref(), &now, *source), None | Some(Action::AwaitPrevious)),
            "nothing may be left: {said:?} {now:?}"
        );
    }
    told
}

fn types(told: &[LastEvent]) -> Vec<EventType> {
    told.iter().map(|s| s.event).collect()
}

#[test]
fn a_job_is_added_modified_and_ends() {
    use EventType::{Added, Modified, Outcome};
    let states = [
        (a_job("u", 1, json!({})), Source::Create),
        (a_job("u", 1, json!({})), Source::Watch),
        (a_job("u", 2, json!({"active": 1})), Source::Watch),
        (a_job("u", 3, complete()), Source::Watch),
    ];
    assert_eq!(types(&play(&mut None, &states)), [Added, Modified, Modified, Outcome]);
}

#[test]
fn states_that_merged_still_end_in_the_latest_and_the_outcome() {
    use EventType::{Added, Modified, Outcome};
    assert_eq!(types(&play(&mut None, &[(a_job("u", 9, complete()), Source::Watch)])), [Added, Outcome]);
    let mut last = said("u", 1, Added);
    assert_eq!(types(&play(&mut last, &[(a_job("u", 9, complete()), Source::Watch)])), [Modified, Outcome]);
}

#[test]
fn an_old_state_says_nothing() {
    let last = said("u", 5, EventType::Modified);
    assert_eq!(next(last.as_ref(), &a_job("u", 5, json!({})), Source::Watch), None);
    assert_eq!(next(last.as_ref(), &a_job("u", 4, json!({})), Source::Watch), None);
}

#[test]
fn a_deletion_before_a_final_condition_is_verified_told_and_ends_as_deleted() {
    let gone = a_job("u", 6, json!({"active": 1})).with_presence(Presence::DeletedUnverified);
    let last = said("u", 5, EventType::Modified);
    assert_eq!(next(last.as_ref(), &gone, Source::Watch), Some(Action::VerifyDeleted));
    let gone = gone.with_presence(Presence::Deleted);
    assert_eq!(next(last.as_ref(), &gone, Source::Watch), Some(Action::Publish(EventType::Deleted, None)));
    let Some(Action::Publish(EventType::Outcome, Some(outcome))) =
        next(said("u", 6, EventType::Deleted).as_ref(), &gone, Source::Watch)
    else {
        panic!("an outcome is due")
    };
    assert_eq!(outcome.result, OutcomeResult::Deleted);
}

#[test]
fn a_finished_job_that_was_deleted_before_its_outcome_ends_by_its_condition() {
    let gone = a_job("u", 6, complete()).with_presence(Presence::Deleted);
    let Some(Action::Publish(EventType::Outcome, Some(outcome))) =
        next(said("u", 6, EventType::Deleted).as_ref(), &gone, Source::Watch)
    else {
        panic!("an outcome is due")
    };
    assert_eq!(outcome.result, OutcomeResult::Complete);
}

#[test]
fn a_job_that_vanished_unseen_ends_as_deleted_without_a_deleted_event() {
    let gone = a_job("u", 5, json!({})).with_presence(Presence::MissingUnverified);
    let mut last = said("u", 5, EventType::Added);
    assert_eq!(types(&play(&mut last, &[(gone, Source::Watch)])), [EventType::Outcome]);
}

#[test]
fn after_the_outcome_a_present_job_is_settled_and_a_settled_one_is_left_alone() {
    let last = said("u", 5, EventType::Outcome);
    let mut job = a_job("u", 5, complete());
    assert_eq!(next(last.as_ref(), &job, Source::Watch), Some(Action::Retire));
    assert_eq!(next(last.as_ref(), &job.clone().with_presence(Presence::Deleted), Source::Watch), None);
    job.retired = true;
    // Whatever has expired from the stream.
    assert_eq!(next(None, &job, Source::Watch), None);
    assert_eq!(next(None, &job.clone().with_presence(Presence::DeletedUnverified), Source::Watch), None);
}

#[test]
fn a_recurring_name_starts_anew_after_its_last_outcome() {
    let last = said("old", 5, EventType::Outcome);
    assert_eq!(
        next(last.as_ref(), &a_job("new", 9, json!({})), Source::Create),
        Some(Action::Publish(EventType::Added, None))
    );
}

#[test]
fn an_earlier_job_without_an_outcome_is_closed_by_the_watch_only() {
    let last = said("old", 5, EventType::Modified);
    let new = a_job("new", 9, json!({}));
    assert_eq!(next(last.as_ref(), &new, Source::Create), Some(Action::AwaitPrevious));
    assert_eq!(next(last.as_ref(), &new, Source::Watch), Some(Action::ClosePrevious));
}

#[test]
fn a_late_state_of_an_earlier_job_says_nothing() {
    let last = said("new", 9, EventType::Added);
    let old = a_job("old", 8, json!({}));
    assert_eq!(next(last.as_ref(), &old, Source::Watch), None);
    assert_eq!(next(last.as_ref(), &old.with_presence(Presence::DeletedUnverified), Source::Watch), None);
}

/// Any history of states of up to three Jobs of one name, in any order, with repeats.
fn histories() -> impl Strategy<Value = Vec<(JobState, Source)>> {
    let state = (0u64..3, 0u64..6, 0usize..3, any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(job, at, presence, finished, retired, from_create)| {
            let status = if finished { complete() } else { json!({"active": 1}) };
            let presence =
                [Presence::Present, Presence::DeletedUnverified, Presence::MissingUnverified][presence];
            let mut state = a_job(&format!("u{job}"), job * 10 + at, status).with_presence(presence);
            state.retired = retired && finished;
            let create = from_create && presence == Presence::Present;
            (state, if create { Source::Create } else { Source::Watch })
        },
    );
    prop::collection::vec(state, 0..40)
}

proptest! {
    #[test]
    fn any_history_has_at_most_one_outcome_per_job_and_nothing_after_it(states in histories()) {
        let told = play(&mut None, &states);
        for uid in ["u0", "u1", "u2"] {
            let of: Vec<_> = told.iter().filter(|s| s.uid == uid).collect();
            let outcomes = of.iter().filter(|s| s.is_final()).count();
            prop_assert!(outcomes <= 1, "{told:?}");
            prop_assert!(outcomes == 0 || of.last().unwrap().is_final(), "{told:?}");
            prop_assert!(of.windows(2).all(|w| w[0].resource_version <= w[1].resource_version), "{told:?}");
            prop_assert!(of.iter().filter(|s| s.event == EventType::Added).count() <= 1, "{told:?}");
        }
    }

    #[test]
    fn saying_is_idempotent(states in histories()) {
        let mut last = None;
        play(&mut last, &states);
        // The last state once more changes nothing.
        if let Some(again) = states.last() {
            let before = last.clone();
            let more = play(&mut last, std::slice::from_ref(again));
            prop_assert!(more.is_empty(), "{before:?} {more:?}");
        }
    }
}

#[test]
fn an_earlier_job_is_closed_although_the_one_that_has_its_name_is_settled() {
    let earlier = LastEvent { uid: "earlier".into(), resource_version: 5, event: EventType::Added };
    let retired = JobState { retired: true, ..a_job("now", 9, json!({})) };
    assert!(needs_reconcile(Some(&earlier), &retired));
    assert_eq!(next(Some(&earlier), &retired, Source::Watch), Some(Action::ClosePrevious));
    let closed = LastEvent { event: EventType::Outcome, ..earlier };
    assert!(!needs_reconcile(Some(&closed), &retired) && !needs_reconcile(None, &retired));
    assert_eq!(next(Some(&closed), &retired, Source::Watch), None);
}
