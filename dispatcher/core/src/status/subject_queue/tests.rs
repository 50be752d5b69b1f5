use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::testing::a_job;
use crate::{
    contract::event::{EventType, Stall},
    status::{
        pod_tracker::{Effect, PodState},
        reconcile::LastEvent,
    },
};

fn known(sequence: u64, uid: &str, resource_version: u64, event: EventType) -> SubjectState {
    SubjectState { sequence, last: Some(LastEvent { uid: uid.into(), resource_version, event }) }
}

fn step<W>(lane: &mut SubjectQueue<W>) -> Option<Action> {
    lane.next(true).map(|(step, ..)| step)
}

#[test]
fn a_lane_has_one_piece_of_work_under_way_and_goes_on_in_order() {
    let mut lane = SubjectQueue::<()>::new(SubjectState::default());
    lane.offer(a_job("u", 1, json!({})), Source::Create);
    lane.offer(a_job("u", 2, json!({})), Source::Watch);
    assert_eq!(step(&mut lane), Some(Action::Publish(EventType::Added, None)));
    assert_eq!(step(&mut lane), None, "one at a time");
    lane.done(ActionResult::Published(known(1, "u", 1, EventType::Added)));
    assert_eq!(step(&mut lane), Some(Action::Publish(EventType::Modified, None)));
    lane.done(ActionResult::Read(known(2, "u", 2, EventType::Modified)));
    assert_eq!(step(&mut lane), None);
    assert!(!lane.is_over(true), "the outcome is to come");
}

#[test]
fn a_refused_publish_is_decided_again_from_what_is_there() {
    let mut lane = SubjectQueue::<()>::new(SubjectState::default());
    lane.offer(a_job("u", 1, json!({})), Source::Watch);
    assert_eq!(step(&mut lane), Some(Action::Publish(EventType::Added, None)));
    lane.done(ActionResult::Read(known(9, "u", 1, EventType::Added)));
    assert_eq!(step(&mut lane), None, "somebody has said it");
}

#[test]
fn a_long_outage_merges_states_and_keeps_the_newest() {
    let mut lane = SubjectQueue::<()>::new(SubjectState::default());
    for resource_version in 1..100 {
        lane.offer(a_job("u", resource_version, json!({})), Source::Watch);
    }
    assert_eq!(lane.waiting.len(), WAITING);
    assert_eq!(lane.waiting.back().unwrap().0.resource_version, 99);
}

#[test]
fn in_a_crowd_only_the_newest_state_waits_behind_the_one_at_work() {
    let mut lane = SubjectQueue::<()>::new(SubjectState::default());
    for resource_version in 1..10 {
        lane.offer(a_job("u", resource_version, json!({})), Source::Watch);
    }
    for resource_version in 10..20 {
        lane.offer_in_a_crowd(a_job("u", resource_version, json!({})), Source::Watch);
    }
    let waiting: Vec<_> = lane.waiting.iter().map(|(state, _)| state.resource_version).collect();
    assert_eq!(waiting, [1, 19]);
    lane.offer_in_a_crowd(a_job("v", 20, json!({})), Source::Watch);
    assert_eq!(lane.waiting(), 3, "another Job's last state is not given up");
}

#[test]
fn a_job_that_only_lost_its_label_is_not_spoken_of() {
    let mut lane = SubjectQueue::<()>::new(known(1, "u", 1, EventType::Added));
    lane.offer(a_job("u", 2, json!({})).with_presence(Presence::DeletedUnverified), Source::Watch);
    assert_eq!(step(&mut lane), Some(Action::VerifyDeleted));
    lane.done(ActionResult::Verified(DeletionCheck::No));
    assert_eq!(step(&mut lane), None);
}

#[test]
fn a_stream_that_lost_events_hears_them_again() {
    let mut lane = SubjectQueue::<()>::new(known(9, "u", 5, EventType::Modified));
    lane.learn(known(3, "u", 1, EventType::Added));
    lane.offer(a_job("u", 5, json!({})), Source::Watch);
    assert_eq!(step(&mut lane), Some(Action::Publish(EventType::Modified, None)));
}

#[test]
fn what_the_watch_brought_is_handed_over_and_what_a_create_brought_is_not() {
    let mut lane = SubjectQueue::<()>::new(known(1, "u", 1, EventType::Added));
    lane.offer(a_job("u", 2, json!({})), Source::Watch);
    lane.offer(a_job("u", 3, json!({})), Source::Watch);
    assert_eq!(step(&mut lane), Some(Action::Publish(EventType::Modified, None)));
    lane.offer(a_job("v", 9, json!({})), Source::Create);
    lane.hand_over();
    assert_eq!(lane.source(), Some(Source::Watch), "at work: it ends by itself");
    lane.done(ActionResult::Abandoned);
    assert_eq!(lane.source(), Some(Source::Create));
    assert!(!lane.is_over(false));
    lane.done(ActionResult::Read(known(4, "v", 9, EventType::Added)));
    assert_eq!(step(&mut lane), None);
    assert!(lane.is_over(false) && !lane.is_over(true), "what is to come is the other replica's to say");
}

#[test]
fn a_created_job_awaits_the_end_of_the_earlier_one_of_its_name_which_the_watch_closes() {
    let mut lane = SubjectQueue::<()>::new(known(1, "earlier", 1, EventType::Added));
    lane.offer(a_job("u", 5, json!({})), Source::Create);
    for _ in 0..2 {
        assert_eq!(step(&mut lane), Some(Action::AwaitPrevious), "whoever waits or not");
        lane.done(ActionResult::Read(known(1, "earlier", 1, EventType::Added)));
    }
    lane.offer(a_job("u", 5, json!({})), Source::Watch);
    assert_eq!(step(&mut lane), Some(Action::ClosePrevious), "the watch goes first");
    lane.done(ActionResult::Published(known(2, "earlier", 1, EventType::Outcome)));
    assert_eq!(step(&mut lane), Some(Action::Publish(EventType::Added, None)));
    lane.done(ActionResult::Published(known(3, "u", 5, EventType::Added)));
    assert_eq!(step(&mut lane), None, "it is said once");
    assert_eq!(lane.waiting(), 0);
}

/// The watch is down while it is created and goes; then the list misses the earlier one, and knows nothing of this one.
#[test]
fn a_created_job_that_no_watch_brings_is_spoken_of_when_the_earlier_one_is_closed() {
    let mut lane = SubjectQueue::new(known(1, "earlier", 1, EventType::Added));
    let own = || RequestId::try_from("its own").unwrap();
    let created = JobState { request_id: own(), ..a_job("u", 5, json!({})) };
    lane.offer(created, Source::Create);
    lane.wait("u".into(), 1);
    lane.offer(a_job("earlier", 1, json!({})).with_presence(Presence::MissingUnverified), Source::Watch);
    lane.offer(a_job("later", 9, json!({})), Source::Watch);
    let untold = |lane: &SubjectQueue<i32>| lane.pending_job(&own()).map(|state| state.uid);
    assert_eq!(untold(&lane), Some("u".into()));
    assert_eq!(step(&mut lane), Some(Action::VerifyDeleted));
    lane.done(ActionResult::Verified(DeletionCheck::Deleted));
    assert_eq!(lane.next(true).as_ref().and_then(|(step, ..)| says(step)), Some(EventType::Outcome));
    lane.hand_over();
    lane.done(ActionResult::Published(known(2, "earlier", 1, EventType::Outcome)));
    let (said, state, _) = lane.next(true).unwrap();
    assert_eq!((says(&said), state.uid.as_str()), (Some(EventType::Added), "u"));
    lane.done(ActionResult::Published(known(3, "u", 5, EventType::Added)));
    assert_eq!(lane.served(), [1]);
    assert_eq!(step(&mut lane), None);
    assert_eq!(untold(&lane), None, "the stream tells");
}

#[test]
fn what_a_create_brought_is_not_merged_into_what_the_watch_brings() {
    let mut lane = SubjectQueue::<()>::new(known(1, "earlier", 1, EventType::Added));
    lane.offer(a_job("u", 5, json!({})), Source::Create);
    (6..9).for_each(|version| lane.offer_in_a_crowd(a_job("u", version, json!({})), Source::Watch));
    lane.hand_over();
    assert_eq!((lane.waiting(), lane.source()), (1, Some(Source::Create)));
}

#[test]
fn who_waits_for_a_first_event_is_served_when_it_is_said() {
    let mut lane = SubjectQueue::new(SubjectState::default());
    lane.wait("u".into(), 1);
    lane.wait("other".into(), 2);
    assert!(lane.served().is_empty());
    lane.done(ActionResult::Read(known(3, "u", 1, EventType::Added)));
    assert_eq!(lane.served(), [1]);
    lane.forget(|w| *w == 2);
    lane.done(ActionResult::Read(known(4, "u", 1, EventType::Outcome)));
    assert!(lane.is_over(true));
}

#[test]
fn a_job_that_was_to_be_cancelled_ends_so_unless_it_had_ended_by_itself() {
    for (status, result) in [
        (json!({}), "Cancelled"),
        (json!({"conditions": [{"type": "Complete", "status": "True"}]}), "Complete"),
    ] {
        let mut lane = SubjectQueue::<()>::new(known(1, "u", 2, EventType::Modified));
        lane.offer(a_job("u", 2, status).with_presence(Presence::MissingUnverified), Source::Watch);
        assert_eq!(step(&mut lane), Some(Action::VerifyDeleted));
        lane.done(ActionResult::Verified(DeletionCheck::Cancelled));
        let Some(Action::Publish(EventType::Outcome, Some(outcome))) = step(&mut lane) else {
            panic!("outcome")
        };
        assert_eq!(outcome.result.to_string(), result);
    }
}

fn ended(pod: &str, code: i32, log: bool) -> PodState {
    crate::status::pod_tracker::tests::ended(pod, code, log)
}

fn complete(pods: u32) -> serde_json::Value {
    json!({"succeeded": pods, "conditions": [{"type": "Complete", "status": "True"}]})
}

/// The event of a step that says something.
fn says(step: &Action) -> Option<EventType> {
    match step {
        Action::Publish(event, _) => Some(*event),
        Action::PublishPending(PendingEvent::Attempt(..)) => Some(EventType::Attempt),
        Action::PublishPending(PendingEvent::Stall(_)) => Some(EventType::Stalled),
        _ => None,
    }
}

#[test]
fn an_attempt_is_told_of_a_job_that_was_spoken_of_and_before_its_outcome() {
    let mut lane = SubjectQueue::<()>::new(SubjectState::default());
    lane.sign("u".into(), ended("p1", 0, false));
    assert_eq!(step(&mut lane), None, "of a Job that is not known");
    lane.offer(a_job("u", 1, json!({})), Source::Watch);
    assert_eq!(step(&mut lane), Some(Action::Publish(EventType::Added, None)));
    lane.done(ActionResult::Published(known(1, "u", 1, EventType::Added)));
    let Some((Action::PublishPending(PendingEvent::Attempt(pod, _)), state, _)) = lane.next(true) else {
        panic!("an attempt")
    };
    assert_eq!((pod.as_str(), state.resource_version), ("p1", 1));
    lane.done(ActionResult::Published(known(2, "u", 1, EventType::Attempt)));
    assert_eq!(step(&mut lane), None);
    lane.offer(a_job("u", 2, complete(1)), Source::Watch);
    assert_eq!(step(&mut lane), Some(Action::Publish(EventType::Modified, None)));
    lane.done(ActionResult::Published(known(3, "u", 2, EventType::Modified)));
    let Some(Action::Publish(EventType::Outcome, Some(outcome))) = step(&mut lane) else {
        panic!("an outcome")
    };
    assert_eq!((outcome.attempts.len(), outcome.attempts_omitted), (1, 0));
}

#[test]
fn an_attempt_that_somebody_elses_message_held_up_is_told_again() {
    let mut lane = SubjectQueue::<()>::new(known(1, "u", 1, EventType::Added));
    lane.offer(a_job("u", 1, json!({})), Source::Watch);
    lane.sign("u".into(), ended("p1", 0, false));
    assert_eq!(step(&mut lane).as_ref().and_then(says), Some(EventType::Attempt));
    lane.done(ActionResult::Read(known(2, "u", 1, EventType::Modified)));
    assert_eq!(step(&mut lane).as_ref().and_then(says), Some(EventType::Attempt));
}

#[test]
fn an_outcome_waits_for_the_first_list_of_pods() {
    let mut lane = SubjectQueue::<()>::new(known(1, "u", 2, EventType::Modified));
    lane.offer(a_job("u", 2, complete(0)), Source::Watch);
    assert!(lane.next(false).is_none());
    assert_eq!(step(&mut lane).as_ref().and_then(says), Some(EventType::Outcome));
}

#[test]
fn the_outcome_of_a_job_that_is_gone_waits_for_nothing() {
    let mut lane = SubjectQueue::<()>::new(known(1, "u", 2, EventType::Modified));
    lane.sign("u".into(), ended("p1", 1, true));
    lane.offer(a_job("u", 2, json!({"failed": 3})).with_presence(Presence::Missing), Source::Watch);
    let Some((Action::PublishPending(PendingEvent::Attempt(..)), ..)) = lane.next(false) else {
        panic!("an attempt")
    };
    lane.done(ActionResult::Published(known(2, "u", 2, EventType::Attempt)));
    let Some((Action::Publish(EventType::Outcome, Some(outcome)), ..)) = lane.next(false) else {
        panic!("an outcome")
    };
    assert_eq!((outcome.attempts.len(), outcome.attempts_omitted), (1, 2));
}

#[test]
fn a_suspended_job_is_told_of_once_that_has_lasted() {
    let suspended =
        json!({"conditions": [{"type": "Suspended", "status": "True", "reason": "JobSuspended"}]});
    let mut lane = SubjectQueue::<()>::new(known(1, "u", 2, EventType::Modified));
    lane.offer(a_job("u", 2, suspended), Source::Watch);
    assert_eq!(step(&mut lane), None);
    let (uid, asides) = lane.asides().unwrap();
    let [Effect::Wait(timer, _)] = asides.as_slice() else { panic!("{asides:?}") };
    lane.beside(&uid, EffectResult::Waited(timer.clone()));
    assert_eq!(step(&mut lane).as_ref().and_then(says), Some(EventType::Stalled));
}

#[test]
fn what_pods_tell_after_the_outcome_is_of_no_interest() {
    let mut lane = SubjectQueue::<()>::new(known(1, "u", 2, EventType::Outcome));
    lane.sign("u".into(), ended("p1", 0, false));
    assert!(lane.signs.is_empty() && lane.is_over(true));
}

#[test]
fn what_pods_told_is_handed_over_as_well() {
    let mut lane = SubjectQueue::<()>::new(known(1, "u", 1, EventType::Added));
    lane.offer(a_job("u", 1, json!({})), Source::Watch);
    lane.sign("u".into(), ended("p1", 0, false));
    assert_eq!(step(&mut lane).as_ref().and_then(says), Some(EventType::Attempt));
    assert_eq!(lane.source(), Some(Source::Watch));
    lane.offer(a_job("v", 9, json!({})), Source::Create);
    lane.hand_over();
    lane.done(ActionResult::Abandoned);
    assert_eq!(lane.source(), Some(Source::Create), "it has lost nothing");
    assert!(lane.signs.is_empty());
}

/// What may come to a lane: a state of one of three Jobs, what a pod tells of one, the end of a wait.
#[derive(Debug, Clone)]
enum Input {
    State(JobState, Source),
    PodObservation(usize, PodState),
    AsidesEnd,
    PodsListed,
    Refused,
}

fn inputs() -> impl Strategy<Value = Vec<Input>> {
    let state = (0u64..3, 0u64..6, 0usize..3, any::<bool>(), any::<bool>()).prop_map(
        |(job, at, presence, end, create)| {
            let status = if end { complete(1) } else { json!({"failed": at}) };
            let presence =
                [Presence::Present, Presence::DeletedUnverified, Presence::MissingUnverified][presence];
            let state = a_job(&format!("u{job}"), job * 10 + at, status).with_presence(presence);
            let create = create && presence == Presence::Present;
            Input::State(state, if create { Source::Create } else { Source::Watch })
        },
    );
    let sign = (0usize..3, 0usize..4, 0i32..2, any::<bool>()).prop_map(|(job, pod, code, log)| {
        let stall = Stall { reason: "ErrImagePull".into(), message: String::new() };
        let tells = match pod {
            0 => PodState::Waiting { pod: "p0".into(), created: 1, stall: Some(stall) },
            1 => PodState::Running { pod: "p1".into(), created: 1 },
            _ => ended(&format!("p{job}{pod}"), code, log),
        };
        Input::PodObservation(job, tells)
    });
    let other = prop_oneof![Just(Input::AsidesEnd), Just(Input::PodsListed), Just(Input::Refused)];
    prop::collection::vec(prop_oneof![3 => state, 3 => sign, 1 => other], 0..60)
}

/// The writer and the stream around a lane.
#[derive(Default)]
struct World {
    stored: Vec<LastEvent>,
    asides: Vec<(String, Effect)>,
    pods_listed: bool,
    refuse: bool,
}

impl World {
    /// Does all that there is to do, as the writer does.
    fn work(&mut self, lane: &mut SubjectQueue<()>) {
        loop {
            let next = lane.next(self.pods_listed);
            let asides = lane.asides();
            self.asides.extend(
                asides.into_iter().flat_map(|(uid, all)| all.into_iter().map(move |a| (uid.clone(), a))),
            );
            let Some((step, state, known)) = next else { return };
            let waits = step == Action::AwaitPrevious;
            let done = match &step {
                Action::ClosePrevious => {
                    let earlier = known.last.unwrap();
                    self.store(LastEvent { event: EventType::Outcome, ..earlier })
                }
                Action::VerifyDeleted => ActionResult::Verified(DeletionCheck::Deleted),
                Action::Retire => ActionResult::Retired,
                Action::AwaitPrevious => ActionResult::Read(known),
                // Refused by the fence once: the last message is read.
                _ if std::mem::take(&mut self.refuse) => ActionResult::Read(known),
                step => {
                    let event = says(step).unwrap();
                    let resource_version = reconcile::resource_version(known.last.as_ref(), &state);
                    self.store(LastEvent { uid: state.uid.clone(), resource_version, event })
                }
            };
            lane.done(done);
            if waits {
                return;
            }
        }
    }

    fn store(&mut self, said: LastEvent) -> ActionResult {
        self.stored.push(said.clone());
        ActionResult::Published(SubjectState {
            sequence: u64::try_from(self.stored.len()).unwrap(),
            last: Some(said),
        })
    }

    fn play(inputs: Vec<Input>) -> (Self, SubjectQueue<()>) {
        let (mut world, mut lane) = (Self::default(), SubjectQueue::new(SubjectState::default()));
        for input in inputs {
            match input {
                Input::State(state, source) => lane.offer(state, source),
                Input::PodObservation(job, tells) => lane.sign(format!("u{job}"), tells),
                Input::PodsListed => world.pods_listed = true,
                Input::Refused => world.refuse = true,
                Input::AsidesEnd => world.end_asides(&mut lane),
            }
            world.work(&mut lane);
        }
        // In the end every wait is over.
        world.pods_listed = true;
        world.work(&mut lane);
        for _ in 0..20 {
            world.end_asides(&mut lane);
            world.work(&mut lane);
        }
        (world, lane)
    }

    fn end_asides(&mut self, lane: &mut SubjectQueue<()>) {
        for (uid, aside) in std::mem::take(&mut self.asides) {
            lane.beside(
                &uid,
                match aside {
                    Effect::Log { pod, .. } => EffectResult::Log(pod, Some("tail".into())),
                    Effect::Wait(timer, _) => EffectResult::Waited(timer),
                },
            );
        }
    }
}

proptest! {
    #[test]
    fn any_history_has_at_most_one_outcome_per_job_and_nothing_after_it(inputs in inputs()) {
        let (world, lane) = World::play(inputs.clone());
        for uid in ["u0", "u1", "u2"] {
            let of: Vec<_> = world.stored.iter().filter(|said| said.uid == uid).collect();
            let outcomes = of.iter().filter(|said| said.is_final()).count();
            prop_assert!(outcomes <= 1, "{:?}", world.stored);
            prop_assert!(outcomes == 0 || of.last().unwrap().is_final(), "{:?}", world.stored);
            prop_assert!(of.windows(2).all(|w| w[0].resource_version <= w[1].resource_version), "{:?}", world.stored);
            prop_assert!(
                of.first().is_none_or(|said| !matches!(said.event, EventType::Attempt | EventType::Stalled)),
                "a pod before its Job: {:?}", world.stored
            );
        }
        // Nothing waits for ever, but for the watch to close an earlier Job.
        prop_assert!(lane.waiting.iter().all(|(_, source)| *source == Source::Create), "{lane:?}");
    }

    #[test]
    fn each_created_job_is_spoken_of_or_a_later_one_or_it_awaits_an_earlier_one(inputs in inputs()) {
        let (world, lane) = World::play(inputs.clone());
        let newest = world.stored.iter().map(|said| said.resource_version).max();
        for input in inputs {
            let Input::State(state, Source::Create) = input else { continue };
            let told = world.stored.iter().any(|said| said.uid == state.uid);
            let late = newest.is_some_and(|newest| newest >= state.resource_version);
            let awaits = lane.waiting.iter().map(|(state, _)| state).chain(&lane.created);
            prop_assert!(told || late || awaits.clone().any(|other| other.uid == state.uid), "{:?}", world.stored);
        }
    }

    #[test]
    fn pods_change_nothing_of_what_is_said_of_their_job(inputs in inputs()) {
        let without: Vec<_> = inputs.iter().filter(|input| !matches!(input, Input::PodObservation(..))).cloned().collect();
        let states = |world: World| -> Vec<LastEvent> {
            let pods = [EventType::Attempt, EventType::Stalled];
            world.stored.into_iter().filter(|said| !pods.contains(&said.event)).collect()
        };
        // Where pods are waited for more states wait too, and then they may merge: the last word of each Job is the same.
        let last_words = |said: Vec<LastEvent>| -> BTreeMap<String, (u64, EventType)> {
            said.into_iter().map(|said| (said.uid, (said.resource_version, said.event))).collect()
        };
        prop_assert_eq!(last_words(states(World::play(inputs).0)), last_words(states(World::play(without).0)));
    }
}
