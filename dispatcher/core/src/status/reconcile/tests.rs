use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{contract::event::OutcomeResult, testing::a_job};

fn complete() -> Value {
    json!({"conditions": [{"type": "Complete", "status": "True"}]})
}

fn last(uid: &str, resource_version: u64, event: EventType) -> LastEvent {
    LastEvent { uid: uid.into(), resource_version, event }
}

/// Reconciles each observed Job until no action is left, as the caller of [`reconcile`] does.
/// Returns the published events.
fn run(last: &mut Option<LastEvent>, jobs: &[(JobState, Source)]) -> Vec<LastEvent> {
    let mut published = Vec::new();
    for (job, source) in jobs {
        let mut job = job.clone();
        for _ in 0..10 {
            let (uid, resource_version, event) = match reconcile(last.as_ref(), &job, *source) {
                Some(Action::Publish(event, _)) => {
                    (job.uid.clone(), resource_version(last.as_ref(), &job), event)
                }
                Some(Action::ClosePrevious) => {
                    let previous = last.clone().unwrap();
                    (previous.uid, previous.resource_version, EventType::Outcome)
                }
                Some(Action::VerifyDeleted) => {
                    let deleted = if job.presence == Presence::DeletedUnverified {
                        Presence::Deleted
                    } else {
                        Presence::Missing
                    };
                    job = job.with_presence(deleted);
                    continue;
                }
                Some(Action::Retire) => {
                    job.retired = true;
                    continue;
                }
                Some(Action::VerifyCurrent) => {
                    // The API server has the newest Job so far.
                    let uids =
                        jobs.iter().map(|(job, _)| &job.uid).chain(last.as_ref().map(|last| &last.uid));
                    match check_name(last.as_ref(), &job, uids.max().map(String::as_str)) {
                        NameCheck::Outdated => break,
                        NameCheck::Current => job.confirmed = true,
                        NameCheck::Deleted => {
                            job = JobState { confirmed: true, ..job.with_presence(Presence::Deleted) };
                        }
                    }
                    continue;
                }
                Some(Action::PublishPending(_)) => panic!("only the queue returns events of pods"),
                Some(Action::AwaitPrevious) | None => break,
            };
            let event = LastEvent { uid, resource_version, event };
            published.push(event.clone());
            *last = Some(event);
        }
        assert!(
            matches!(
                reconcile(last.as_ref(), &job, *source),
                None | Some(Action::AwaitPrevious | Action::VerifyCurrent)
            ),
            "an action is left: {last:?} {job:?}"
        );
    }
    published
}

fn types(events: &[LastEvent]) -> Vec<EventType> {
    events.iter().map(|event| event.event).collect()
}

#[test]
fn observed_job_yields_added_modified_and_outcome() {
    use EventType::{Added, Modified, Outcome};
    let states = [
        (a_job("u", 1, json!({})), Source::Create),
        (a_job("u", 1, json!({})), Source::Watch),
        (a_job("u", 2, json!({"active": 1})), Source::Watch),
        (a_job("u", 3, complete()), Source::Watch),
    ];
    assert_eq!(types(&run(&mut None, &states)), [Added, Modified, Modified, Outcome]);
}

#[test]
fn job_finished_between_observations_yields_one_event_and_the_outcome() {
    use EventType::{Added, Modified, Outcome};
    assert_eq!(types(&run(&mut None, &[(a_job("u", 9, complete()), Source::Watch)])), [Added, Outcome]);
    let mut published = Some(last("u", 1, Added));
    assert_eq!(
        types(&run(&mut published, &[(a_job("u", 9, complete()), Source::Watch)])),
        [Modified, Outcome]
    );
}

#[test]
fn published_or_older_state_needs_no_action() {
    let published = last("u", 5, EventType::Modified);
    assert_eq!(reconcile(Some(&published), &a_job("u", 5, json!({})), Source::Watch), None);
    assert_eq!(reconcile(Some(&published), &a_job("u", 4, json!({})), Source::Watch), None);
}

#[test]
fn deletion_of_an_unfinished_job_is_verified_and_yields_deleted_and_outcome() {
    let deleted = a_job("u", 6, json!({"active": 1})).with_presence(Presence::DeletedUnverified);
    let published = last("u", 5, EventType::Modified);
    assert_eq!(reconcile(Some(&published), &deleted, Source::Watch), Some(Action::VerifyDeleted));
    let deleted = deleted.with_presence(Presence::Deleted);
    assert_eq!(
        reconcile(Some(&published), &deleted, Source::Watch),
        Some(Action::Publish(EventType::Deleted, None))
    );
    let Some(Action::Publish(EventType::Outcome, Some(outcome))) =
        reconcile(Some(&last("u", 6, EventType::Deleted)), &deleted, Source::Watch)
    else {
        panic!("expected an outcome")
    };
    assert_eq!(outcome.result, OutcomeResult::Deleted);
}

#[test]
fn finished_job_deleted_before_its_outcome_keeps_the_result_of_its_condition() {
    let deleted = a_job("u", 6, complete()).with_presence(Presence::Deleted);
    let Some(Action::Publish(EventType::Outcome, Some(outcome))) =
        reconcile(Some(&last("u", 6, EventType::Deleted)), &deleted, Source::Watch)
    else {
        panic!("expected an outcome")
    };
    assert_eq!(outcome.result, OutcomeResult::Complete);
}

#[test]
fn missing_job_has_an_outcome_without_a_deleted_event() {
    let deleted = a_job("u", 5, json!({})).with_presence(Presence::MissingUnverified);
    let mut published = Some(last("u", 5, EventType::Added));
    assert_eq!(types(&run(&mut published, &[(deleted, Source::Watch)])), [EventType::Outcome]);
}

#[test]
fn job_with_an_outcome_is_retired_once() {
    let published = last("u", 5, EventType::Outcome);
    let mut job = a_job("u", 5, complete());
    assert_eq!(reconcile(Some(&published), &job, Source::Watch), Some(Action::Retire));
    assert_eq!(
        reconcile(Some(&published), &job.clone().with_presence(Presence::Deleted), Source::Watch),
        None
    );
    job.retired = true;
    // Without a last event: the outcome may have exceeded the `max_age` of `JOB_STATUS`.
    assert_eq!(reconcile(None, &job, Source::Watch), None);
    assert_eq!(reconcile(None, &job.clone().with_presence(Presence::DeletedUnverified), Source::Watch), None);
}

#[test]
fn job_without_a_final_condition_is_never_retired() {
    let published = last("u", 5, EventType::Outcome);
    for status in [
        json!({}),
        json!({"active": 1}),
        json!({"conditions": [{"type": "FailureTarget", "status": "True"}]}),
    ] {
        assert_eq!(reconcile(Some(&published), &a_job("u", 9, status), Source::Watch), None);
    }
    assert_eq!(reconcile(Some(&published), &a_job("u", 10, complete()), Source::Watch), Some(Action::Retire));
}

#[test]
fn job_that_leaves_the_watch_after_its_outcome_needs_no_action() {
    let published = last("u", 5, EventType::Outcome);
    let left = a_job("u", 6, complete()).with_presence(Presence::DeletedUnverified);
    assert_eq!(reconcile(Some(&published), &left, Source::Watch), None);
}

#[test]
fn job_with_a_reused_name_is_added_after_the_outcome_of_the_previous_job() {
    let published = last("old", 5, EventType::Outcome);
    assert_eq!(
        reconcile(Some(&published), &a_job("new", 9, json!({})), Source::Create),
        Some(Action::Publish(EventType::Added, None))
    );
}

#[test]
fn only_the_watch_closes_a_previous_job_without_an_outcome() {
    let published = last("old", 5, EventType::Modified);
    let new = JobState { confirmed: true, ..a_job("new", 9, json!({})) };
    assert_eq!(reconcile(Some(&published), &new, Source::Create), Some(Action::AwaitPrevious));
    assert_eq!(reconcile(Some(&published), &new, Source::Watch), Some(Action::ClosePrevious));
}

#[test]
fn a_get_decides_between_two_jobs_whatever_their_versions() {
    let added = last("a", 9, EventType::Added);
    // After a restore of etcd, the newer Job can have the lower version.
    for version in [1, 8, 9, 10, 99] {
        let observed = a_job("b", version, json!({}));
        assert_eq!(reconcile(Some(&added), &observed, Source::Watch), Some(Action::VerifyCurrent));
        let deleted = observed.clone().with_presence(Presence::DeletedUnverified);
        assert_eq!(reconcile(Some(&added), &deleted, Source::Watch), Some(Action::VerifyCurrent));
        assert_eq!(check_name(Some(&added), &observed, Some("b")), NameCheck::Current);
        assert_eq!(check_name(Some(&added), &deleted, Some("b")), NameCheck::Outdated, "it left the watch");
        for holder in [None, Some("a"), Some("c")] {
            assert_eq!(check_name(Some(&added), &observed, holder), NameCheck::Outdated, "{holder:?}");
        }
        assert_eq!(check_name(Some(&added), &deleted, Some("a")), NameCheck::Outdated);
    }
}

#[test]
fn of_two_deleted_jobs_the_newer_one_is_published() {
    let added = last("a", 9, EventType::Added);
    let deleted = |version| a_job("b", version, json!({})).with_presence(Presence::DeletedUnverified);
    for holder in [None, Some("c")] {
        assert_eq!(check_name(Some(&added), &deleted(10), holder), NameCheck::Deleted);
        assert_eq!(check_name(Some(&added), &deleted(8), holder), NameCheck::Outdated);
    }
}

#[test]
fn response_to_a_create_is_proof_unless_a_later_job_is_published() {
    let (closed, newer) = (last("a", 5, EventType::Outcome), last("a", 50, EventType::Outcome));
    let created = a_job("b", 9, json!({}));
    let added = Some(Action::Publish(EventType::Added, None));
    assert_eq!(reconcile(Some(&closed), &created, Source::Create), added);
    assert_eq!(reconcile(Some(&newer), &created, Source::Create), Some(Action::VerifyCurrent));
    let confirmed = JobState { confirmed: true, ..created };
    assert_eq!(reconcile(Some(&newer), &confirmed, Source::Create), added);
}

#[test]
fn last_published_state_of_a_missing_job_is_outdated_by_another_job() {
    let missing = a_job("old", 8, json!({})).with_presence(Presence::MissingUnverified);
    assert_eq!(reconcile(Some(&last("new", 3, EventType::Added)), &missing, Source::Watch), None);
}

/// Observations of up to three Jobs of one name, in any order and with repetitions.
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
    fn any_history_publishes_at_most_one_outcome_per_job_and_no_event_after_it(jobs in histories()) {
        let published = run(&mut None, &jobs);
        for uid in ["u0", "u1", "u2"] {
            let events: Vec<_> = published.iter().filter(|event| event.uid == uid).collect();
            let outcomes = events.iter().filter(|event| event.is_final()).count();
            prop_assert!(outcomes <= 1, "{published:?}");
            prop_assert!(outcomes == 0 || events.last().unwrap().is_final(), "{published:?}");
            prop_assert!(
                events.windows(2).all(|pair| pair[0].resource_version <= pair[1].resource_version),
                "{published:?}"
            );
            let added = events.iter().filter(|event| event.event == EventType::Added);
            prop_assert!(added.count() <= 1, "{published:?}");
        }
    }

    #[test]
    fn reconciling_is_idempotent(jobs in histories()) {
        let mut last = None;
        run(&mut last, &jobs);
        if let Some(repeated) = jobs.last() {
            let before = last.clone();
            let published = run(&mut last, std::slice::from_ref(repeated));
            prop_assert!(published.is_empty(), "{before:?} {published:?}");
        }
    }
}

#[test]
fn previous_job_is_closed_although_the_current_one_is_retired() {
    let previous = LastEvent { uid: "previous".into(), resource_version: 5, event: EventType::Added };
    let retired = JobState { retired: true, ..a_job("current", 9, json!({})) };
    assert!(needs_reconcile(Some(&previous), &retired));
    let retired = JobState { confirmed: true, ..retired };
    assert_eq!(reconcile(Some(&previous), &retired, Source::Watch), Some(Action::ClosePrevious));
    let closed = LastEvent { event: EventType::Outcome, ..previous };
    assert!(!needs_reconcile(Some(&closed), &retired) && !needs_reconcile(None, &retired));
    assert_eq!(reconcile(Some(&closed), &retired, Source::Watch), None);
}
