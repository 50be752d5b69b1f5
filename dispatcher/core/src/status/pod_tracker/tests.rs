use serde_json::json;

use super::*;
use crate::testing::a_job;

pub fn ended(pod: &str, code: i32, log: bool) -> PodState {
    let attempt = Attempt {
        pod: format!("name-{pod}"),
        exit_code: Some(code),
        finished_at: Some(format!(
            "2026-01-01T00:00:{:0>2}Z",
            pod.trim_start_matches(|c: char| !c.is_numeric())
        )),
        ..Attempt::default()
    };
    PodState::Ended {
        pod: pod.into(),
        created: 1,
        attempt: Box::new(attempt),
        log: log.then(|| "main".to_owned()),
    }
}

fn told(signs: &mut PodTracker, end: End) -> Vec<String> {
    let mut told = Vec::new();
    while let Some(telling) = signs.next(end) {
        signs.told(&telling);
        told.push(match telling {
            PendingEvent::Attempt(pod, attempt) => format!("{pod}{}", attempt.log_tail.unwrap_or_default()),
            PendingEvent::Stall(stall) => stall.reason,
        });
    }
    told
}

fn outcome(signs: &PodTracker, pods: u32) -> Outcome {
    let mut outcome = a_job("u", 1, json!({})).outcome_of_deletion();
    signs.explain(&mut outcome, pods);
    outcome
}

#[test]
fn an_attempt_is_told_once_however_often_its_pod_is_seen() {
    let mut signs = PodTracker::default();
    signs.take(ended("p1", 0, false));
    assert_eq!(told(&mut signs, End::Not), ["p1"]);
    signs.take(ended("p1", 0, false));
    assert!(told(&mut signs, End::Not).is_empty());
    signs.forget_told();
    assert_eq!(told(&mut signs, End::Not), ["p1"], "the stream has lost it");
}

#[test]
fn a_failed_attempt_waits_a_moment_for_its_log() {
    let mut signs = PodTracker::default();
    signs.take(ended("p1", 1, true));
    let asides = signs.asides();
    let log = Effect::Log { pod: "p1".into(), name: "name-p1".into(), container: "main".into() };
    assert_eq!(asides, [log, Effect::Wait(Timer::Log("p1".into()), LOG_GRACE)]);
    assert!(signs.asides().is_empty() && told(&mut signs, End::Not).is_empty());
    signs.log("p1", Some(": the end".into()));
    assert_eq!(told(&mut signs, End::Not), ["p1: the end"]);
}

#[test]
fn a_log_that_is_late_comes_with_the_outcome() {
    let mut signs = PodTracker::default();
    signs.take(ended("p1", 1, true));
    signs.asides();
    signs.waited(&Timer::Log("p1".into()));
    assert_eq!(told(&mut signs, End::Not), ["p1"]);
    assert!(signs.holds(1), "for the log");
    signs.log("p1", Some("tail".into()));
    assert!(!signs.holds(1));
    assert_eq!(outcome(&signs, 1).attempts[0].log_tail.as_deref(), Some("tail"));
}

#[test]
fn an_outcome_waits_for_pods_that_are_known_to_have_ended_but_not_for_ever() {
    let mut signs = PodTracker::default();
    assert!(!signs.holds(0));
    assert!(signs.holds(2));
    assert_eq!(signs.asides(), [Effect::Wait(Timer::Outcome, OUTCOME_GRACE)]);
    signs.take(ended("p1", 1, true));
    told(&mut signs, End::Final);
    assert!(signs.holds(2));
    signs.waited(&Timer::Outcome);
    assert_eq!(told(&mut signs, End::Final), ["p1"], "without its log");
    assert!(!signs.holds(2));
    let outcome = outcome(&signs, 2);
    assert_eq!((outcome.attempts.len(), outcome.attempts_omitted), (1, 1));
}

#[test]
fn of_many_attempts_the_failed_and_the_newest_are_kept() {
    let mut signs = PodTracker::default();
    for n in 0..10 {
        signs.take(ended(&format!("p{n}"), 1, false));
    }
    for n in 10..50 {
        signs.take(ended(&format!("p{n}"), 0, false));
    }
    assert_eq!(told(&mut signs, End::Not).len(), 50);
    let outcome = outcome(&signs, 50);
    assert_eq!((outcome.attempts.len(), outcome.attempts_omitted), (KEPT, 50 - 16));
    let failed = outcome.attempts.iter().filter(|attempt| attempt.exit_code == Some(1)).count();
    assert_eq!((failed, outcome.attempts[15].pod.as_str()), (10, "name-p49"));
    // And none is told again.
    (0..50).for_each(|n| signs.take(ended(&format!("p{n}"), 1, false)));
    assert!(told(&mut signs, End::Not).is_empty());
}

#[test]
fn only_so_many_tails_are_held_at_once() {
    let mut signs = PodTracker::default();
    (0..40).for_each(|n| signs.take(ended(&format!("p{n}"), 1, true)));
    let logs =
        |asides: Vec<Effect>| asides.into_iter().filter(|aside| matches!(aside, Effect::Log { .. })).count();
    assert_eq!(logs(signs.asides()), KEPT);
    assert_eq!(logs(signs.asides()), 0);
    let mut told = told(&mut signs, End::Not).len();
    for _ in 0..40 {
        let fetching: Vec<String> = signs
            .attempts
            .iter()
            .filter(|(_, ended)| matches!(ended.log, Log::Fetching { .. }))
            .map(|(pod, _)| pod.clone())
            .collect();
        fetching.iter().for_each(|pod| signs.log(pod, Some("tail".into())));
        told += self::told(&mut signs, End::Not).len();
        signs.asides();
    }
    assert_eq!(told, 40, "every one is told in the end");
    assert_eq!(signs.attempts.len(), KEPT);
}

#[test]
fn before_the_outcome_no_stall_is_told_and_a_failed_one_keeps_it() {
    let mut signs = PodTracker::default();
    let stall = Stall { reason: "ErrImageNeverPull".into(), message: "m".into() };
    signs.take(PodState::Waiting { pod: "p1".into(), created: 1, stall: Some(stall.clone()) });
    assert!(told(&mut signs, End::Final).is_empty());
    assert_eq!(told(&mut signs, End::Not), ["ErrImageNeverPull"]);
    assert_eq!(outcome(&signs, 0).stall, Some(stall));
}
