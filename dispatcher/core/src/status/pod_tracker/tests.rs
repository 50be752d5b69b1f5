use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{contract::event::Stall, status::pod_observation::Wait, testing::a_job};

/// A pod that ended. The digits of its uid are the second at which it ended.
pub(in crate::status) fn ended(pod: &str, code: i32, log: bool) -> PodState {
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

/// Publishes every event that is due. An attempt yields its pod's uid and log tail, a stall its
/// reason.
fn publish_all(pods: &mut PodTracker, end: JobEnd) -> Vec<String> {
    let mut published = Vec::new();
    while let Some(event) = pods.next(end) {
        pods.mark_published(&event);
        published.push(match event {
            PendingEvent::Attempt(pod, attempt) => format!("{pod}{}", attempt.log_tail.unwrap_or_default()),
            PendingEvent::Stall(stall) => stall.reason,
        });
    }
    published
}

fn outcome(pods: &PodTracker, count: u32) -> Outcome {
    let mut outcome = a_job("u", 1, json!({})).outcome_of_deletion();
    pods.complete_outcome(&mut outcome, count);
    outcome
}

#[test]
fn repeated_observation_publishes_one_attempt() {
    let mut pods = PodTracker::default();
    pods.observe(ended("p1", 0, false));
    assert_eq!(publish_all(&mut pods, JobEnd::Unfinished), ["p1"]);
    pods.observe(ended("p1", 0, false));
    assert!(publish_all(&mut pods, JobEnd::Unfinished).is_empty());
    pods.forget_published();
    assert_eq!(publish_all(&mut pods, JobEnd::Unfinished), ["p1"], "the stream lost the attempt");
}

#[test]
fn failed_attempt_waits_for_its_log() {
    let mut pods = PodTracker::default();
    pods.observe(ended("p1", 1, true));
    let effects = pods.take_effects();
    let log = Effect::FetchLog { pod: "p1".into(), name: "name-p1".into(), container: "main".into() };
    assert_eq!(effects, [log, Effect::Wait(Timer::Log("p1".into()), LOG_GRACE)]);
    assert!(pods.take_effects().is_empty() && publish_all(&mut pods, JobEnd::Unfinished).is_empty());
    pods.log_fetched("p1", Some(": the end".into()));
    assert_eq!(publish_all(&mut pods, JobEnd::Unfinished), ["p1: the end"]);
}

#[test]
fn late_log_appears_in_the_outcome() {
    let mut pods = PodTracker::default();
    pods.observe(ended("p1", 1, true));
    pods.take_effects();
    pods.timer_expired(&Timer::Log("p1".into()));
    assert_eq!(publish_all(&mut pods, JobEnd::Unfinished), ["p1"]);
    assert!(pods.holds_outcome(1), "the log is not fetched yet");
    pods.log_fetched("p1", Some("tail".into()));
    assert!(!pods.holds_outcome(1));
    assert_eq!(outcome(&pods, 1).attempts[0].log_tail.as_deref(), Some("tail"));
}

#[test]
fn outcome_waits_for_unobserved_pods_until_its_timer_expires() {
    let mut pods = PodTracker::default();
    assert!(!pods.holds_outcome(0));
    assert!(pods.holds_outcome(2));
    assert_eq!(pods.take_effects(), [Effect::Wait(Timer::Outcome, OUTCOME_GRACE)]);
    pods.observe(ended("p1", 1, true));
    publish_all(&mut pods, JobEnd::Finished);
    assert!(pods.holds_outcome(2));
    pods.timer_expired(&Timer::Outcome);
    assert_eq!(publish_all(&mut pods, JobEnd::Finished), ["p1"], "without its log");
    assert!(!pods.holds_outcome(2));
    let outcome = outcome(&pods, 2);
    assert_eq!((outcome.attempts.len(), outcome.attempts_omitted), (1, 1));
}

#[test]
fn outcome_waits_for_a_list_of_the_pods_that_ended_before_the_watch() {
    let mut pods = PodTracker::default();
    pods.count_ended(2);
    assert!(pods.holds_outcome(2));
    assert_eq!(pods.take_effects(), [Effect::Wait(Timer::EndedPods, WATCH_GRACE)]);
    pods.observe(ended("p1", 1, false));
    assert_eq!(publish_all(&mut pods, JobEnd::Finished), ["p1"]);
    assert!(pods.holds_outcome(2), "the watch may be late");
    pods.timer_expired(&Timer::EndedPods);
    assert_eq!(pods.take_effects(), [Effect::ListEnded]);
    assert!(pods.holds_outcome(2));
    pods.ended_listed(vec![ended("p1", 1, false)]);
    assert!(!pods.holds_outcome(2), "the other pod is deleted");
    let outcome = outcome(&pods, 2);
    assert_eq!((outcome.attempts.len(), outcome.attempts_omitted), (1, 1));
}

#[test]
fn outcome_waits_for_the_logs_of_listed_pods_until_its_timer_expires() {
    let mut pods = PodTracker::default();
    pods.count_ended(1);
    pods.take_effects();
    pods.timer_expired(&Timer::EndedPods);
    pods.take_effects();
    pods.ended_listed(vec![ended("p1", 1, true)]);
    assert!(pods.holds_outcome(1));
    assert!(pods.take_effects().contains(&Effect::Wait(Timer::Outcome, OUTCOME_GRACE)));
    pods.timer_expired(&Timer::Outcome);
    assert_eq!(publish_all(&mut pods, JobEnd::Finished), ["p1"], "without its log");
    assert!(!pods.holds_outcome(1));
}

#[test]
fn ended_pods_are_listed_only_if_the_watch_does_not_deliver_them() {
    let mut pods = PodTracker::default();
    pods.count_ended(0);
    assert_eq!(pods.take_effects(), []);
    pods.count_ended(1);
    assert_eq!(pods.take_effects(), [Effect::Wait(Timer::EndedPods, WATCH_GRACE)]);
    pods.observe(ended("p1", 0, false));
    pods.timer_expired(&Timer::EndedPods);
    assert_eq!(pods.take_effects(), [], "the watch was late");
    // Two more pods ended, and one of them is deleted.
    pods.count_ended(3);
    pods.take_effects();
    pods.timer_expired(&Timer::EndedPods);
    assert_eq!(pods.take_effects(), [Effect::ListEnded]);
    pods.count_ended(3);
    assert_eq!(pods.take_effects(), [], "one list at a time");
    pods.ended_listed(vec![ended("p1", 0, false), ended("p2", 0, false)]);
    pods.count_ended(3);
    assert_eq!(pods.take_effects(), [], "the deleted pod causes no further list");
    pods.observe(ended("p4", 0, false));
    pods.count_ended(4);
    assert_eq!(pods.take_effects(), []);
}

#[test]
fn failed_and_newest_attempts_are_kept() {
    let mut pods = PodTracker::default();
    for n in 0..10 {
        pods.observe(ended(&format!("p{n}"), 1, false));
    }
    for n in 10..50 {
        pods.observe(ended(&format!("p{n}"), 0, false));
    }
    assert_eq!(publish_all(&mut pods, JobEnd::Unfinished).len(), 50);
    let outcome = outcome(&pods, 50);
    assert_eq!((outcome.attempts.len(), outcome.attempts_omitted), (MAX_KEPT, 50 - 16));
    let failed = outcome.attempts.iter().filter(|attempt| attempt.exit_code == Some(1)).count();
    assert_eq!((failed, outcome.attempts[15].pod.as_str()), (10, "name-p49"));
    // A dropped attempt is not published again.
    (0..50).for_each(|n| pods.observe(ended(&format!("p{n}"), 1, false)));
    assert!(publish_all(&mut pods, JobEnd::Unfinished).is_empty());
}

#[test]
fn held_log_tails_are_bounded() {
    let mut pods = PodTracker::default();
    (0..40).for_each(|n| pods.observe(ended(&format!("p{n}"), 1, true)));
    let fetches = |effects: Vec<Effect>| {
        effects.into_iter().filter(|effect| matches!(effect, Effect::FetchLog { .. })).count()
    };
    assert_eq!(fetches(pods.take_effects()), MAX_KEPT);
    assert_eq!(fetches(pods.take_effects()), 0);
    let mut published = publish_all(&mut pods, JobEnd::Unfinished).len();
    for _ in 0..40 {
        let fetching: Vec<String> = pods
            .ended
            .iter()
            .filter(|(_, pod)| matches!(pod.log, LogState::Fetching { .. }))
            .map(|(uid, _)| uid.clone())
            .collect();
        for uid in &fetching {
            pods.log_fetched(uid, Some("tail".into()));
        }
        published += publish_all(&mut pods, JobEnd::Unfinished).len();
        pods.take_effects();
    }
    assert_eq!(published, 40, "every attempt is published");
    assert_eq!(pods.ended.len(), MAX_KEPT);
}

#[test]
fn finished_job_publishes_no_stall_and_its_failed_outcome_contains_it() {
    let mut pods = PodTracker::default();
    let stall = Stall { reason: "ErrImageNeverPull".into(), message: "m".into() };
    let wait = Wait::Blocked(stall.clone());
    pods.observe(PodState::Waiting { pod: "p1".into(), created: 1, progress: 1, wait });
    assert!(publish_all(&mut pods, JobEnd::Finished).is_empty());
    assert_eq!(publish_all(&mut pods, JobEnd::Unfinished), ["ErrImageNeverPull"]);
    assert_eq!(outcome(&pods, 0).stall, Some(stall));
}

proptest! {
    /// Each pod runs, terminates and ends. The order between pods and repeated lists do not matter.
    #[test]
    fn any_order_of_pods_publishes_the_same_attempts(
        observed in prop::collection::vec((0u8..6, 0u8..3), 0..60),
    ) {
        let state = |pod: u8, stage: u8| match stage {
            0 => PodState::Running { pod: pod.to_string(), created: 1 },
            1 => PodState::Terminating { pod: pod.to_string(), created: 1 },
            _ => ended(&pod.to_string(), i32::from(pod % 2), false),
        };
        let mut published = BTreeSet::new();
        let mut running = PodTracker::default();
        for (pod, stage) in &observed {
            running.observe(state(*pod, *stage));
            for attempt in publish_all(&mut running, JobEnd::Unfinished) {
                prop_assert!(published.insert(attempt), "published twice");
            }
        }
        let ends: BTreeSet<u8> = observed.iter().filter(|(_, stage)| *stage == 2).map(|(pod, _)| *pod).collect();
        let mut fresh = PodTracker::default();
        ends.iter().for_each(|pod| fresh.observe(state(*pod, 2)));
        let fresh: BTreeSet<String> = publish_all(&mut fresh, JobEnd::Unfinished).into_iter().collect();
        prop_assert_eq!(published, fresh);
    }
}
