use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    contract::event::Stall,
    status::{
        pod_observation::{PodState, Wait},
        pod_tracker::{Effect, tests::ended},
        reconcile::{NameCheck, check_name, resource_version},
    },
    testing::a_job,
};

fn subject(sequence: u64, uid: &str, resource_version: u64, event: EventType) -> SubjectState {
    SubjectState { sequence, last: Some(LastEvent { uid: uid.into(), resource_version, event }) }
}

fn pending<W>(queue: &SubjectQueue<W>) -> VecDeque<(Arc<JobState>, Source)> {
    queue.work.as_ref().map(|work| work.pending.clone()).unwrap_or_default()
}

fn next_action<W>(queue: &mut SubjectQueue<W>) -> Option<Action> {
    queue.next(true).map(|(action, ..)| action)
}

#[test]
fn one_action_is_in_flight_and_jobs_keep_their_order() {
    let mut queue = SubjectQueue::<()>::new(SubjectState::default());
    queue.enqueue(a_job("u", 1, json!({})), Source::Create);
    queue.enqueue(a_job("u", 2, json!({})), Source::Watch);
    assert_eq!(next_action(&mut queue), Some(Action::Publish(EventType::Added, None)));
    assert_eq!(next_action(&mut queue), None, "an action is in flight");
    queue.complete(ActionResult::Published(subject(1, "u", 1, EventType::Added)));
    assert_eq!(next_action(&mut queue), Some(Action::Publish(EventType::Modified, None)));
    queue.complete(ActionResult::Read(subject(2, "u", 2, EventType::Modified)));
    assert_eq!(next_action(&mut queue), None);
    assert!(!queue.is_idle(true), "the outcome is outstanding");
}

#[test]
fn fenced_publish_is_reconciled_with_the_last_message() {
    let mut queue = SubjectQueue::<()>::new(SubjectState::default());
    queue.enqueue(a_job("u", 1, json!({})), Source::Watch);
    assert_eq!(next_action(&mut queue), Some(Action::Publish(EventType::Added, None)));
    queue.complete(ActionResult::Read(subject(9, "u", 1, EventType::Added)));
    assert_eq!(next_action(&mut queue), None, "another replica published it");
}

#[test]
fn full_queue_keeps_the_newest_state() {
    let mut queue = SubjectQueue::<()>::new(SubjectState::default());
    for resource_version in 1..100 {
        queue.enqueue(a_job("u", resource_version, json!({})), Source::Watch);
    }
    assert_eq!(pending(&queue).len(), MAX_DEPTH);
    assert_eq!(pending(&queue).back().unwrap().0.resource_version, 99);
}

#[test]
fn coalesced_queue_keeps_the_newest_state_and_the_one_with_an_action_in_flight() {
    for (in_flight, expected) in [(false, vec![19]), (true, vec![1, 19])] {
        let mut queue = SubjectQueue::<()>::new(SubjectState::default());
        for resource_version in 1..10 {
            queue.enqueue(a_job("u", resource_version, json!({})), Source::Watch);
        }
        if in_flight {
            assert_eq!(next_action(&mut queue), Some(Action::Publish(EventType::Added, None)));
        }
        for resource_version in 10..20 {
            queue.enqueue_coalesced(a_job("u", resource_version, json!({})), Source::Watch);
        }
        let waiting: Vec<_> = pending(&queue).iter().map(|(state, _)| state.resource_version).collect();
        assert_eq!(waiting, expected);
        queue.enqueue_coalesced(a_job("v", 20, json!({})), Source::Watch);
        assert_eq!(queue.len(), expected.len() + 1, "the last state of another Job is kept");
    }
}

#[test]
fn queue_at_rest_keeps_no_work() {
    let mut queue = SubjectQueue::new(SubjectState::default());
    queue.add_waiter("u".into(), ());
    queue.enqueue(a_job("u", 1, json!({})), Source::Create);
    assert_eq!(next_action(&mut queue), Some(Action::Publish(EventType::Added, None)));
    queue.complete(ActionResult::Published(subject(1, "u", 1, EventType::Added)));
    assert_eq!(queue.take_served().len(), 1);
    assert_eq!(next_action(&mut queue), None);
    assert!(queue.work.is_none() && queue.published_job.is_some(), "{queue:?}");
}

#[test]
fn event_of_a_pod_contains_the_published_state_of_its_own_job() {
    // Given a published Job, and an earlier attempt of a later Job of its name.
    let mut queue = SubjectQueue::<()>::new(SubjectState::default());
    queue.enqueue(a_job("u", 1, json!({"active": 1})), Source::Watch);
    assert_eq!(next_action(&mut queue), Some(Action::Publish(EventType::Added, None)));
    queue.complete(ActionResult::Published(subject(1, "u", 1, EventType::Added)));
    assert_eq!(next_action(&mut queue), None);
    queue.observe_pod("v".into(), ended("p", 1, false));
    // When another replica has published the later Job.
    queue.update(subject(3, "v", 5, EventType::Added));
    assert_eq!(next_action(&mut queue), None, "the state of the later Job is unknown");
    queue.enqueue(a_job("v", 5, json!({"active": 2})), Source::Watch);
    // Then its attempt has its own state.
    let (action, job, _) = queue.next(true).unwrap();
    assert_eq!((event_type(&action), job.uid.as_str()), (Some(EventType::Attempt), "v"));
    assert_eq!(job.status.text(), r#"{"active":2}"#);
}

#[test]
fn job_that_lost_its_label_publishes_no_event() {
    let mut queue = SubjectQueue::<()>::new(subject(1, "u", 1, EventType::Added));
    queue.enqueue(a_job("u", 2, json!({})).with_presence(Presence::DeletedUnverified), Source::Watch);
    assert_eq!(next_action(&mut queue), Some(Action::VerifyDeleted));
    queue.complete(ActionResult::Verified(DeletionCheck::Exists));
    assert_eq!(next_action(&mut queue), None);
}

#[test]
fn queue_keeps_few_states_with_a_large_status() {
    let mut queue = SubjectQueue::<()>::new(SubjectState::default());
    let large = json!({"completedIndexes": "1,".repeat(LARGE_STATUS)});
    for resource_version in 1..10 {
        queue.enqueue(a_job("u", resource_version, large.clone()), Source::Watch);
    }
    let waiting: Vec<_> = pending(&queue).iter().map(|(state, _)| state.resource_version).collect();
    assert_eq!(waiting, [1, 9]);
}

#[test]
fn refused_retirement_does_not_block_the_next_job_of_the_name() {
    let mut queue = SubjectQueue::<()>::new(subject(4, "u", 4, EventType::Outcome));
    let finished = a_job("u", 4, json!({"conditions": [{"type": "Complete", "status": "True"}]}));
    queue.enqueue(finished, Source::Watch);
    assert_eq!(next_action(&mut queue), Some(Action::Retire));
    queue.enqueue(a_job("next", 9, json!({})), Source::Watch);
    queue.complete(ActionResult::Refused);
    assert_eq!(next_action(&mut queue), Some(Action::VerifyCurrent));
    queue.complete(ActionResult::Current);
    assert_eq!(next_action(&mut queue), Some(Action::Publish(EventType::Added, None)));
}

#[test]
fn refused_retirement_leaves_an_idle_queue() {
    let mut queue = SubjectQueue::<()>::new(subject(4, "u", 4, EventType::Outcome));
    let finished = json!({"conditions": [{"type": "Complete", "status": "True"}]});
    queue.enqueue(a_job("u", 4, finished), Source::Watch);
    assert_eq!(next_action(&mut queue), Some(Action::Retire));
    queue.complete(ActionResult::Refused);
    assert!(queue.is_idle(true));
}

#[test]
fn job_that_is_current_closes_the_previous_one_until_a_third_job_is_published() {
    let mut queue = SubjectQueue::<()>::new(subject(1, "a", 9, EventType::Added));
    queue.enqueue(a_job("b", 2, json!({})), Source::Watch);
    assert_eq!(next_action(&mut queue), Some(Action::VerifyCurrent));
    queue.complete(ActionResult::Current);
    assert_eq!(next_action(&mut queue), Some(Action::ClosePrevious));
    // Another replica has published an event of a third Job since.
    queue.complete(ActionResult::Read(subject(5, "c", 3, EventType::Added)));
    assert_eq!(next_action(&mut queue), Some(Action::VerifyCurrent));
    queue.complete(ActionResult::Current);
    assert_eq!(next_action(&mut queue), Some(Action::ClosePrevious));
    queue.complete(ActionResult::Published(subject(6, "c", 3, EventType::Outcome)));
    assert_eq!(next_action(&mut queue), Some(Action::Publish(EventType::Added, None)));
}

#[test]
fn events_lost_by_the_stream_are_published_again() {
    let mut queue = SubjectQueue::<()>::new(subject(9, "u", 5, EventType::Modified));
    queue.update(subject(3, "u", 1, EventType::Added));
    queue.enqueue(a_job("u", 5, json!({})), Source::Watch);
    assert_eq!(next_action(&mut queue), Some(Action::Publish(EventType::Modified, None)));
}

#[test]
fn stepping_down_drops_watched_jobs_and_keeps_created_ones() {
    let mut queue = SubjectQueue::<()>::new(subject(1, "u", 1, EventType::Added));
    queue.enqueue(a_job("u", 2, json!({})), Source::Watch);
    queue.enqueue(a_job("u", 3, json!({})), Source::Watch);
    assert_eq!(next_action(&mut queue), Some(Action::Publish(EventType::Modified, None)));
    queue.enqueue(a_job("v", 9, json!({})), Source::Create);
    queue.step_down();
    assert_eq!(queue.next_source(), Some(Source::Watch), "the action in flight completes on its own");
    queue.complete(ActionResult::Abandoned);
    assert_eq!(queue.next_source(), Some(Source::Create));
    assert!(!queue.is_idle(false));
    queue.complete(ActionResult::Read(subject(4, "v", 9, EventType::Added)));
    assert_eq!(next_action(&mut queue), None);
    assert!(queue.is_idle(false) && !queue.is_idle(true), "the other replica publishes the outcome");
}

#[test]
fn created_job_waits_until_the_watch_closes_the_previous_job() {
    let mut queue = SubjectQueue::<()>::new(subject(1, "previous", 1, EventType::Added));
    queue.enqueue(a_job("u", 5, json!({})), Source::Create);
    for _ in 0..2 {
        assert_eq!(next_action(&mut queue), Some(Action::AwaitPrevious), "with and without a poll before");
        queue.complete(ActionResult::Read(subject(1, "previous", 1, EventType::Added)));
    }
    queue.enqueue(a_job("u", 5, json!({})), Source::Watch);
    assert_eq!(next_action(&mut queue), Some(Action::VerifyCurrent));
    queue.complete(ActionResult::Current);
    assert_eq!(
        next_action(&mut queue),
        Some(Action::ClosePrevious),
        "the observation of the watch precedes the created Job"
    );
    queue.complete(ActionResult::Published(subject(2, "previous", 1, EventType::Outcome)));
    assert_eq!(next_action(&mut queue), Some(Action::Publish(EventType::Added, None)));
    queue.complete(ActionResult::Published(subject(3, "u", 5, EventType::Added)));
    assert_eq!(next_action(&mut queue), None, "ADDED is published once");
    assert_eq!(queue.len(), 0);
}

/// The watch is down while the Job is created and deleted. The list that follows contains neither this
/// Job nor the previous one.
#[test]
fn created_job_that_is_never_watched_is_published_after_the_previous_job() {
    let mut queue = SubjectQueue::new(subject(1, "previous", 1, EventType::Added));
    let own_id = || RequestId::try_from("own").unwrap();
    let created = JobState { request_id: own_id(), ..a_job("u", 5, json!({})) };
    queue.enqueue(created, Source::Create);
    queue.add_waiter("u".into(), 1);
    queue.enqueue(a_job("previous", 1, json!({})).with_presence(Presence::MissingUnverified), Source::Watch);
    queue.enqueue(a_job("later", 9, json!({})), Source::Watch);
    let unpublished = |queue: &SubjectQueue<i32>| queue.pending_job(&own_id()).map(|state| state.uid);
    assert_eq!(unpublished(&queue), Some("u".into()));
    assert_eq!(next_action(&mut queue), Some(Action::VerifyDeleted));
    queue.complete(ActionResult::Verified(DeletionCheck::Deleted));
    assert_eq!(
        queue.next(true).as_ref().and_then(|(action, ..)| event_type(action)),
        Some(EventType::Outcome)
    );
    queue.step_down();
    queue.complete(ActionResult::Published(subject(2, "previous", 1, EventType::Outcome)));
    let (action, job, _) = queue.next(true).unwrap();
    assert_eq!((event_type(&action), job.uid.as_str()), (Some(EventType::Added), "u"));
    queue.complete(ActionResult::Published(subject(3, "u", 5, EventType::Added)));
    assert_eq!(queue.take_served(), [1]);
    assert_eq!(next_action(&mut queue), None);
    assert_eq!(unpublished(&queue), None, "the stream has its event");
}

#[test]
fn created_job_is_not_merged_with_watched_states() {
    let mut queue = SubjectQueue::<()>::new(subject(1, "previous", 1, EventType::Added));
    queue.enqueue(a_job("u", 5, json!({})), Source::Create);
    (6..9).for_each(|version| queue.enqueue_coalesced(a_job("u", version, json!({})), Source::Watch));
    queue.step_down();
    assert_eq!((queue.len(), queue.next_source()), (1, Some(Source::Create)));
}

#[test]
fn waiter_is_served_by_the_first_event_of_its_job() {
    let mut queue = SubjectQueue::new(SubjectState::default());
    queue.add_waiter("u".into(), 1);
    queue.add_waiter("other".into(), 2);
    assert!(queue.take_served().is_empty());
    queue.complete(ActionResult::Read(subject(3, "u", 1, EventType::Added)));
    assert_eq!(queue.take_served(), [1]);
    queue.retain_waiters(|waiter| *waiter != 2);
    queue.complete(ActionResult::Read(subject(4, "u", 1, EventType::Outcome)));
    assert!(queue.is_idle(true));
}

#[test]
fn cancelled_job_ends_as_cancelled_unless_it_had_finished() {
    for (status, result) in [
        (json!({}), "Cancelled"),
        (json!({"conditions": [{"type": "Complete", "status": "True"}]}), "Complete"),
    ] {
        let mut queue = SubjectQueue::<()>::new(subject(1, "u", 2, EventType::Modified));
        queue.enqueue(a_job("u", 2, status).with_presence(Presence::MissingUnverified), Source::Watch);
        assert_eq!(next_action(&mut queue), Some(Action::VerifyDeleted));
        queue.complete(ActionResult::Verified(DeletionCheck::Cancelled));
        let Some(Action::Publish(EventType::Outcome, Some(outcome))) = next_action(&mut queue) else {
            panic!("expected an outcome")
        };
        assert_eq!(outcome.result.to_string(), result);
    }
}

fn complete(pods: u32) -> Value {
    json!({"succeeded": pods, "conditions": [{"type": "Complete", "status": "True"}]})
}

/// The type of the event that an action publishes.
fn event_type(action: &Action) -> Option<EventType> {
    match action {
        Action::Publish(event, _) => Some(*event),
        Action::PublishPending(PendingEvent::Attempt(..)) => Some(EventType::Attempt),
        Action::PublishPending(PendingEvent::Stall(_)) => Some(EventType::Stalled),
        _ => None,
    }
}

#[test]
fn attempt_is_published_after_added_and_before_the_outcome() {
    let mut queue = SubjectQueue::<()>::new(SubjectState::default());
    queue.observe_pod("u".into(), ended("p1", 0, false));
    assert_eq!(next_action(&mut queue), None, "the Job is not observed yet");
    queue.enqueue(a_job("u", 1, json!({})), Source::Watch);
    assert_eq!(next_action(&mut queue), Some(Action::Publish(EventType::Added, None)));
    queue.complete(ActionResult::Published(subject(1, "u", 1, EventType::Added)));
    let Some((Action::PublishPending(PendingEvent::Attempt(pod, _)), job, _)) = queue.next(true) else {
        panic!("expected an attempt")
    };
    assert_eq!((pod.as_str(), job.resource_version), ("p1", 1));
    queue.complete(ActionResult::Published(subject(2, "u", 1, EventType::Attempt)));
    assert_eq!(next_action(&mut queue), None);
    queue.enqueue(a_job("u", 2, complete(1)), Source::Watch);
    assert_eq!(next_action(&mut queue), Some(Action::Publish(EventType::Modified, None)));
    queue.complete(ActionResult::Published(subject(3, "u", 2, EventType::Modified)));
    let Some(Action::Publish(EventType::Outcome, Some(outcome))) = next_action(&mut queue) else {
        panic!("expected an outcome")
    };
    assert_eq!((outcome.attempts.len(), outcome.attempts_omitted), (1, 0));
}

#[test]
fn fenced_attempt_is_published_again() {
    let mut queue = SubjectQueue::<()>::new(subject(1, "u", 1, EventType::Added));
    queue.enqueue(a_job("u", 1, json!({})), Source::Watch);
    queue.observe_pod("u".into(), ended("p1", 0, false));
    assert_eq!(next_action(&mut queue).as_ref().and_then(event_type), Some(EventType::Attempt));
    queue.complete(ActionResult::Read(subject(2, "u", 1, EventType::Modified)));
    assert_eq!(next_action(&mut queue).as_ref().and_then(event_type), Some(EventType::Attempt));
}

#[test]
fn outcome_waits_for_the_list_of_pods() {
    let mut queue = SubjectQueue::<()>::new(subject(1, "u", 2, EventType::Modified));
    queue.enqueue(a_job("u", 2, complete(0)), Source::Watch);
    assert!(queue.next(false).is_none());
    assert_eq!(next_action(&mut queue).as_ref().and_then(event_type), Some(EventType::Outcome));
}

/// The pods of a later Job cannot end before the watch of the pods begins.
#[test]
fn ended_pods_are_listed_for_a_job_that_existed_before_the_watch_of_the_pods() {
    for existed in [true, false] {
        let mut queue = SubjectQueue::<()>::new(subject(1, "u", 2, EventType::Modified));
        if existed {
            queue.pods_listed();
        }
        queue.enqueue(a_job("u", 2, json!({"failed": 1})), Source::Watch);
        assert_eq!(next_action(&mut queue), None);
        let Some((uid, effects)) = queue.take_effects() else {
            assert!(!existed);
            continue;
        };
        let [Effect::Wait(timer, _)] = effects.as_slice() else { panic!("{effects:?}") };
        queue.complete_effect(&uid, EffectResult::TimerExpired(timer.clone()));
        assert_eq!(queue.take_effects().unwrap().1, [Effect::ListEnded]);
        queue.complete_effect(&uid, EffectResult::EndedPods(vec![ended("p1", 1, false)]));
        assert_eq!(next_action(&mut queue).as_ref().and_then(event_type), Some(EventType::Attempt));
        assert!(existed);
    }
}

#[test]
fn outcome_of_a_deleted_job_does_not_wait() {
    let mut queue = SubjectQueue::<()>::new(subject(1, "u", 2, EventType::Modified));
    queue.observe_pod("u".into(), ended("p1", 1, true));
    queue.enqueue(a_job("u", 2, json!({"failed": 3})).with_presence(Presence::Missing), Source::Watch);
    let Some((Action::PublishPending(PendingEvent::Attempt(..)), ..)) = queue.next(false) else {
        panic!("expected an attempt")
    };
    queue.complete(ActionResult::Published(subject(2, "u", 2, EventType::Attempt)));
    let Some((Action::Publish(EventType::Outcome, Some(outcome)), ..)) = queue.next(false) else {
        panic!("expected an outcome")
    };
    assert_eq!((outcome.attempts.len(), outcome.attempts_omitted), (1, 2));
}

#[test]
fn suspended_job_is_stalled_after_a_delay() {
    let suspended =
        json!({"conditions": [{"type": "Suspended", "status": "True", "reason": "JobSuspended"}]});
    let mut queue = SubjectQueue::<()>::new(subject(1, "u", 2, EventType::Modified));
    queue.enqueue(a_job("u", 2, suspended), Source::Watch);
    assert_eq!(next_action(&mut queue), None);
    let (uid, effects) = queue.take_effects().unwrap();
    let [Effect::Wait(timer, _)] = effects.as_slice() else { panic!("{effects:?}") };
    queue.complete_effect(&uid, EffectResult::TimerExpired(timer.clone()));
    assert_eq!(next_action(&mut queue).as_ref().and_then(event_type), Some(EventType::Stalled));
}

#[test]
fn observations_of_pods_after_the_outcome_are_ignored() {
    let mut queue = SubjectQueue::<()>::new(subject(1, "u", 2, EventType::Outcome));
    queue.observe_pod("u".into(), ended("p1", 0, false));
    assert!(queue.trackers.is_empty() && queue.is_idle(true));
}

#[test]
fn stepping_down_drops_observations_of_pods() {
    let mut queue = SubjectQueue::<()>::new(subject(1, "u", 1, EventType::Added));
    queue.enqueue(a_job("u", 1, json!({})), Source::Watch);
    queue.observe_pod("u".into(), ended("p1", 0, false));
    assert_eq!(next_action(&mut queue).as_ref().and_then(event_type), Some(EventType::Attempt));
    assert_eq!(queue.next_source(), Some(Source::Watch));
    queue.enqueue(a_job("v", 9, json!({})), Source::Create);
    queue.step_down();
    queue.complete(ActionResult::Abandoned);
    assert_eq!(queue.next_source(), Some(Source::Create), "the created Job is kept");
    assert!(queue.trackers.is_empty());
}

/// A resync enqueues a Job that the list lacks in its last published state.
#[test]
fn older_observed_state_does_not_replace_a_newer_one() {
    let last = LastEvent { uid: "u".into(), resource_version: 2, event: EventType::Modified };
    let mut queue = SubjectQueue::<()>::new(SubjectState { sequence: 1, last: Some(last) });
    for job in [
        a_job("u", 3, json!({})),
        a_job("u", 5, complete(0)),
        a_job("u", 2, json!({})).with_presence(Presence::MissingUnverified),
    ] {
        queue.enqueue_coalesced(job, Source::Watch);
    }
    let versions: Vec<u64> = pending(&queue).iter().map(|(job, _)| job.resource_version).collect();
    assert_eq!(versions, [5, 2]);
}

/// The intake reads the Job of a redelivered request. The watch may have delivered the same state.
#[test]
fn created_job_does_not_replace_a_watched_state() {
    let previous = LastEvent { uid: "previous".into(), resource_version: 1, event: EventType::Outcome };
    let subject = SubjectState { sequence: 1, last: Some(previous) };
    let (mut caller, mut queue) =
        (Caller { pods_listed: true, ..Caller::default() }, SubjectQueue::new(subject));
    queue.enqueue_coalesced(a_job("u", 4, json!({})), Source::Watch);
    queue.enqueue_coalesced(a_job("u", 5, complete(0)), Source::Watch);
    queue.enqueue_coalesced(a_job("u", 5, complete(0)), Source::Create);
    caller.perform_actions(&mut queue);
    let last = caller.stored.last().unwrap();
    assert_eq!((last.resource_version, last.is_final()), (5, true), "{:?}", caller.stored);
}

/// An input of the queue and of the simulated caller.
#[derive(Debug, Clone)]
enum Input {
    Job(Box<JobState>, Source),
    Pod(usize, PodState),
    EffectsComplete,
    PodsListed,
    Fenced,
}

fn inputs() -> impl Strategy<Value = Vec<Input>> {
    let job = (0u64..3, 0u64..6, 0usize..3, any::<bool>(), any::<bool>()).prop_map(
        |(job, version, presence, end, create)| {
            let status = if end { complete(1) } else { json!({"failed": version}) };
            let presence =
                [Presence::Present, Presence::DeletedUnverified, Presence::MissingUnverified][presence];
            let state = a_job(&format!("u{job}"), job * 10 + version, status).with_presence(presence);
            let create = create && presence == Presence::Present;
            Input::Job(Box::new(state), if create { Source::Create } else { Source::Watch })
        },
    );
    let pod = (0usize..3, 0usize..4, 0i32..2, any::<bool>()).prop_map(|(job, pod, code, log)| {
        let stall = Stall { reason: "ErrImagePull".into(), message: String::new() };
        let wait = Wait::Blocked(stall);
        let state = match pod {
            0 => PodState::Waiting { pod: "p0".into(), created: 1, progress: 1, wait },
            1 => PodState::Running { pod: "p1".into(), created: 1 },
            _ => ended(&format!("p{job}{pod}"), code, log),
        };
        Input::Pod(job, state)
    });
    let other = prop_oneof![Just(Input::EffectsComplete), Just(Input::PodsListed), Just(Input::Fenced)];
    prop::collection::vec(prop_oneof![3 => job, 3 => pod, 1 => other], 0..60)
}

/// The caller of a queue, and the stream.
#[derive(Default)]
struct Caller {
    stored: Vec<LastEvent>,
    effects: Vec<(String, Effect)>,
    pods_listed: bool,
    /// The next publish is fenced.
    fenced: bool,
}

impl Caller {
    /// Performs every action that is due.
    fn perform_actions(&mut self, queue: &mut SubjectQueue<()>) {
        loop {
            let next = queue.next(self.pods_listed);
            let effects = queue.take_effects();
            self.effects.extend(
                effects
                    .into_iter()
                    .flat_map(|(uid, effects)| effects.into_iter().map(move |effect| (uid.clone(), effect))),
            );
            let Some((action, job, subject)) = next else { return };
            let waits = action == Action::AwaitPrevious;
            let result = match &action {
                Action::ClosePrevious => {
                    let previous = subject.last.unwrap();
                    self.store(LastEvent { event: EventType::Outcome, ..previous })
                }
                Action::VerifyDeleted => ActionResult::Verified(DeletionCheck::Deleted),
                Action::VerifyCurrent => verify_current(&job, &subject),
                Action::Retire => ActionResult::Retired,
                Action::AwaitPrevious => ActionResult::Read(subject),
                // After a fenced publish the caller reads the last message.
                _ if std::mem::take(&mut self.fenced) => ActionResult::Read(subject),
                action => {
                    let event = event_type(action).unwrap();
                    let resource_version = resource_version(subject.last.as_ref(), &job);
                    self.store(LastEvent { uid: job.uid.clone(), resource_version, event })
                }
            };
            queue.complete(result);
            if waits {
                return;
            }
        }
    }

    fn store(&mut self, event: LastEvent) -> ActionResult {
        self.stored.push(event.clone());
        ActionResult::Published(SubjectState {
            sequence: u64::try_from(self.stored.len()).unwrap(),
            last: Some(event),
        })
    }

    fn run(inputs: Vec<Input>) -> (Self, SubjectQueue<()>) {
        let (mut caller, mut queue) = (Self::default(), SubjectQueue::new(SubjectState::default()));
        for input in inputs {
            match input {
                Input::Job(job, source) => queue.enqueue(*job, source),
                Input::Pod(job, state) => queue.observe_pod(format!("u{job}"), state),
                Input::PodsListed => caller.pods_listed = true,
                Input::Fenced => caller.fenced = true,
                Input::EffectsComplete => caller.complete_effects(&mut queue),
            }
            caller.perform_actions(&mut queue);
        }
        // Finally, the pods are listed and every effect completes.
        caller.pods_listed = true;
        caller.perform_actions(&mut queue);
        for _ in 0..20 {
            caller.complete_effects(&mut queue);
            caller.perform_actions(&mut queue);
        }
        (caller, queue)
    }

    fn complete_effects(&mut self, queue: &mut SubjectQueue<()>) {
        for (uid, effect) in std::mem::take(&mut self.effects) {
            let result = match effect {
                Effect::FetchLog { pod, .. } => EffectResult::LogTail(pod, Some("tail".into())),
                Effect::Wait(timer, _) => EffectResult::TimerExpired(timer),
                Effect::ListEnded => EffectResult::EndedPods(vec![]),
            };
            queue.complete_effect(&uid, result);
        }
    }
}

/// What a GET shows if the uids of the Jobs of a name increase.
fn verify_current(job: &JobState, subject: &SubjectState) -> ActionResult {
    let last = subject.last.as_ref();
    let newer = last.filter(|last| last.uid > job.uid).map(|last| last.uid.as_str());
    let holder = newer.or((job.presence == Presence::Present).then_some(job.uid.as_str()));
    match check_name(last, job, holder) {
        NameCheck::Current => ActionResult::Current,
        NameCheck::Deleted => ActionResult::Verified(DeletionCheck::Deleted),
        NameCheck::Outdated => ActionResult::Verified(DeletionCheck::Exists),
    }
}

/// Makes the inputs consistent, as an API server and one intake produce them.
///
/// The watch delivers the states of a Job in order, ends with its deletion, and observes every created
/// state. A Job keeps its final condition. A Job is created once, and after the previous Jobs.
fn consistent(inputs: Vec<Input>) -> Vec<Input> {
    let mut completed = BTreeMap::<String, u64>::new();
    for input in &inputs {
        if let Input::Job(state, _) = input
            && state.outcome().is_some()
        {
            let version = completed.entry(state.uid.clone()).or_insert(u64::MAX);
            *version = state.resource_version.min(*version);
        }
    }
    let (mut observed, mut created) = (BTreeMap::<String, JobState>::new(), BTreeMap::new());
    let mut kept = Vec::new();
    for input in inputs {
        let Input::Job(mut state, source) = input else {
            kept.push(input);
            continue;
        };
        if completed.get(&state.uid).is_some_and(|version| state.resource_version >= *version) {
            state.status = complete(1).into();
        }
        let uid = state.uid.clone();
        let is_consistent = match source {
            Source::Create => {
                !created.contains_key(&uid)
                    && created.keys().chain(observed.keys()).all(|other| *other <= uid)
            }
            Source::Watch => observed.get(&uid).is_none_or(|last| {
                last.presence == Presence::Present && last.resource_version <= state.resource_version
            }),
        };
        if is_consistent {
            let states = if source == Source::Create { &mut created } else { &mut observed };
            states.insert(uid, (*state).clone());
            kept.push(Input::Job(state, source));
        }
    }
    for (uid, state) in created {
        let is_missing = observed.get(&uid).is_none_or(|last| {
            last.presence == Presence::Present && last.resource_version < state.resource_version
        });
        if is_missing {
            observed.insert(uid, state.clone());
            kept.push(Input::Job(Box::new(state), Source::Watch));
        }
    }
    kept.retain(|input| match input {
        Input::Job(state, Source::Create) => {
            observed.get(&state.uid).is_none_or(|last| state.resource_version <= last.resource_version)
        }
        _ => true,
    });
    kept
}

proptest! {
    #[test]
    fn any_history_publishes_at_most_one_outcome_per_job_and_no_event_after_it(inputs in inputs()) {
        let (caller, queue) = Caller::run(inputs.clone());
        for uid in ["u0", "u1", "u2"] {
            let events: Vec<_> = caller.stored.iter().filter(|event| event.uid == uid).collect();
            let outcomes = events.iter().filter(|event| event.is_final()).count();
            prop_assert!(outcomes <= 1, "{:?}", caller.stored);
            prop_assert!(outcomes == 0 || events.last().unwrap().is_final(), "{:?}", caller.stored);
            prop_assert!(
                events.windows(2).all(|pair| pair[0].resource_version <= pair[1].resource_version),
                "{:?}", caller.stored
            );
            prop_assert!(
                events.first().is_none_or(|event| {
                    !matches!(event.event, EventType::Attempt | EventType::Stalled)
                }),
                "an event of a pod precedes its Job: {:?}", caller.stored
            );
        }
        // Only a created Job whose previous Job the watch has not closed stays pending.
        prop_assert!(pending(&queue).iter().all(|(_, source)| *source == Source::Create), "{queue:?}");
    }

    #[test]
    fn any_created_job_is_published_or_superseded_or_awaits_the_previous_job(inputs in inputs()) {
        let (caller, queue) = Caller::run(inputs.clone());
        let newest = caller.stored.iter().map(|event| event.resource_version).max();
        for input in inputs {
            let Input::Job(job, Source::Create) = input else { continue };
            let published = caller.stored.iter().any(|event| event.uid == job.uid);
            let superseded = newest.is_some_and(|newest| newest >= job.resource_version);
            let work = queue.work.as_ref();
            let deferred = work.iter().flat_map(|work| &work.deferred).cloned();
            let mut pending = pending(&queue).into_iter().map(|(job, _)| job).chain(deferred);
            let pending = pending.any(|other| other.uid == job.uid);
            prop_assert!(published || superseded || pending, "{:?}", caller.stored);
        }
    }

    /// While an outcome waits for pods, more states queue up and may be coalesced. Then `ADDED` may
    /// carry a state that is otherwise published as `MODIFIED`, but each Job ends with the same state.
    #[test]
    fn observations_of_pods_do_not_change_the_last_state_of_their_job(inputs in inputs()) {
        let inputs = consistent(inputs);
        let without_pods: Vec<_> =
            inputs.iter().filter(|input| !matches!(input, Input::Pod(..))).cloned().collect();
        let last_states = |inputs: Vec<Input>| -> BTreeMap<String, (u64, bool)> {
            let events = Caller::run(inputs).0.stored.into_iter();
            let events = events.filter(|last| !matches!(last.event, EventType::Attempt | EventType::Stalled));
            events.map(|last| (last.uid.clone(), (last.resource_version, last.is_final()))).collect()
        };
        prop_assert_eq!(last_states(inputs), last_states(without_pods));
    }
}
