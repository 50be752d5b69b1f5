//! Any watch events → at most one outcome of a Job, nothing after it, and an order; and every Job that is gone gets its outcome.
//!
//! An input: a line for each thing that happens. `{"type":"ADDED","object":{...},"to":0}` is a watch event of a Job, a pod or an
//! Event, as the API server sends it, for one replica or both; `CREATED` is the answer to a create. `{"do":"..."}` is what else
//! happens ([`World::act`]). Jobs are written in the order of the lines, so resourceVersions that are numbers grow with
//! them; what is told, when, to whom and in which order is the input's.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    hash::{DefaultHasher, Hash, Hasher},
};

use fastrand::Rng;
use serde_json::Value;

use crate::status::{
    SubjectKey, SubjectState,
    event_body::{EventBody, message},
    pod_tracker::{Effect, PodObservation},
    reconcile::{self, Action, LastEvent, Source, resource_version},
    subject_queue::{ActionResult, DeletionCheck, EffectResult, SubjectQueue},
};
use crate::{
    contract::{
        event::{EventType, StatusEvent},
        job::{JobObject, JobState, Presence},
        names::{JobName, TemplateName},
    },
    fuzz::Target,
    status::explain::{event, pod},
};

/// Steps that one thing that happens may cause, for each lane.
const STEPS: usize = 400;
const MAX_PAYLOAD: usize = 64 * 1024;
const TIME: &str = "2026-01-02T03:04:05Z";

/// `JOB_STATUS`, the cluster, and two replicas that may both believe that they report.
#[derive(Default)]
struct World {
    stream: BTreeMap<SubjectKey, Vec<(u64, StatusEvent, String)>>,
    sequence: u64,
    /// The Jobs that are there, by name, and the last resourceVersion of each that ever was, by name and uid.
    now: HashMap<String, (String, Value)>,
    versions: HashMap<(String, String), u64>,
    version: u64,
    cancelled: bool,
    /// Very many states wait.
    crowded: bool,
    replicas: [Replica; 2],
    paused: bool,
    /// What is told later.
    held: Option<Vec<(usize, Told)>>,
    shown: DefaultHasher,
}

#[derive(Default)]
struct Replica {
    lanes: BTreeMap<SubjectKey, SubjectQueue<u8>>,
    pods_listed: bool,
    beside: Vec<(SubjectKey, String, Effect)>,
    underway: Vec<(SubjectKey, Action, JobState, SubjectState)>,
}

#[derive(Clone)]
enum Told {
    Job(Box<JobObject>, Presence, Source),
    PodObservation(PodObservation),
}

impl World {
    fn happens(&mut self, line: &[u8]) {
        // As the client decodes it, whatever it is.
        let _ = serde_json::from_slice::<JobObject>(line);
        let _ = serde_json::from_slice::<pod::PodObject>(line);
        let Ok(mut line) = serde_json::from_slice::<Value>(line) else { return };
        if !line.is_object() {
            return;
        }
        if let Some(act) = line["do"].as_str().map(str::to_owned) {
            return self.act(&act, &line);
        }
        let (type_, template) = (line["type"].take(), line["object"]["kind"].as_str().map(str::to_owned));
        let type_ = type_.as_str().unwrap_or_default();
        let told = match template.as_deref() {
            Some("Pod") => {
                let Ok(found) = serde_json::from_value(line["object"].take()) else { return };
                let Some(sign) = pod::sign(&found, type_ == "DELETED") else { return };
                Told::PodObservation(sign)
            }
            Some("Event") => {
                let Ok(found) = serde_json::from_value(line["object"].take()) else { return };
                let _ = (event::word(&found), event::at(&found));
                return;
            }
            _ => {
                let object = self.write(line["object"].take(), type_);
                let Ok(object) = serde_json::from_value(object) else { return };
                match type_ {
                    "DELETED" => Told::Job(object, Presence::DeletedUnverified, Source::Watch),
                    "CREATED" => Told::Job(object, Presence::Present, Source::Create),
                    _ => Told::Job(object, Presence::Present, Source::Watch),
                }
            }
        };
        let to = line["to"].as_u64();
        for replica in (0..2).filter(|replica| to.is_none_or(|to| to % 2 == *replica as u64)) {
            match &mut self.held {
                Some(held) => held.push((replica, told.clone())),
                None => self.tell(replica, told.clone()),
            }
        }
    }

    /// A Job is written. One that was replaced or deleted is as it was.
    fn write(&mut self, mut object: Value, type_: &str) -> Value {
        let text = |object: &Value, key: &str| object["metadata"][key].as_str().map(str::to_owned);
        let (Some(name), Some(uid)) = (text(&object, "name"), text(&object, "uid")) else { return object };
        let is_number =
            text(&object, "resourceVersion").is_some_and(|version| version.parse::<u64>().is_ok());
        let is_now = self.now.get(&name).is_some_and(|(now, _)| *now == uid);
        let known = (name.clone(), uid.clone());
        if is_now || !self.versions.contains_key(&known) {
            self.version += 1;
            self.versions.insert(known.clone(), self.version);
            if type_ == "DELETED" {
                self.now.remove(&name);
            } else {
                self.now.insert(name, (uid, Value::Null));
            }
        }
        if is_number {
            object["metadata"]["resourceVersion"] = self.versions[&known].to_string().into();
        }
        if let Some((uid, now)) = self.now.get_mut(&known.0)
            && *uid == known.1
        {
            now.clone_from(&object);
        }
        object
    }

    fn act(&mut self, act: &str, line: &Value) {
        let to = usize::try_from(line["to"].as_u64().unwrap_or_default() % 2).unwrap_or_default();
        match act {
            "crash" => self.replicas[to] = Replica::default(),
            "compare" => self.compare(to),
            "hand-over" => self.replicas[to].lanes.retain(|_, lane| {
                lane.hand_over();
                !lane.is_over(false)
            }),
            "cancel" => self.cancelled = !self.cancelled,
            "crowd" => self.crowded = !self.crowded,
            "pause" => self.paused = true,
            "go" => self.go(),
            "hold" => self.held = Some(self.held.take().unwrap_or_default()),
            "release" => self.release(line["seed"].as_u64().unwrap_or_default()),
            "timers" => self.timers(to),
            "pods-listing" => self.replicas[to].lanes.values_mut().for_each(SubjectQueue::pods_listing),
            "pods-listed" => self.replicas[to].pods_listed = true,
            "nobody-waits" => self.replicas[to].lanes.values_mut().for_each(|lane| lane.forget(|_| true)),
            _ => return,
        }
        self.advance(to);
    }

    fn release(&mut self, seed: u64) {
        let mut held = self.held.take().unwrap_or_default();
        if seed > 0 {
            Rng::with_seed(seed).shuffle(&mut held);
        }
        held.into_iter().for_each(|(replica, told)| self.tell(replica, told));
    }

    /// As `report::watch` reads it, and the desk gives it to a lane.
    fn tell(&mut self, replica: usize, told: Told) {
        match told {
            Told::Job(object, presence, source) => {
                if let Some(state) = self.read(&object) {
                    self.offer(replica, state.with_presence(presence), source, None);
                }
            }
            Told::PodObservation(PodObservation { template, name, uid, tells }) => {
                let lanes = &mut self.replicas[replica].lanes;
                let lane = template.and_then(|template| lanes.get_mut(&(template, name)));
                lane.into_iter().for_each(|lane| lane.sign(uid.clone(), tells.clone()));
            }
        }
        self.advance(replica);
    }

    fn read(&self, object: &JobObject) -> Option<JobState> {
        if let Ok(state) = JobState::from_object(object) {
            return Some(state);
        }
        let name = JobName::try_from(object.metadata.name.as_deref()?).ok()?;
        let template = object.metadata.labels.as_ref()?.get(crate::contract::job::LABEL_TEMPLATE)?;
        let (_, event, hash) =
            self.stream.get(&(TemplateName::try_from(template.as_str()).ok()?, name))?.last()?;
        JobState::from_changed_object(object, event.clone(), hash.clone())
    }

    fn offer(&mut self, replica: usize, state: JobState, source: Source, known: Option<SubjectState>) {
        let key = (state.template.clone(), state.name.clone());
        let Replica { lanes, .. } = &mut self.replicas[replica];
        let last = known.as_ref().and_then(|known| known.last.as_ref());
        if !reconcile::needs_reconcile(last, &state) && !lanes.contains_key(&key) {
            return;
        }
        let lane = lanes.entry(key).or_insert_with(|| SubjectQueue::new(SubjectState::default()));
        known.into_iter().for_each(|known| lane.learn(known));
        if source == Source::Create {
            lane.wait(state.uid.clone(), 0);
        }
        match self.crowded {
            true => lane.offer_in_a_crowd(state, source),
            false => lane.offer(state, source),
        }
    }

    /// The scan of what is open, then the list, then what is in no list.
    fn compare(&mut self, replica: usize) {
        let keys: Vec<SubjectKey> = self.stream.keys().cloned().collect();
        let mut open: Vec<SubjectKey> = keys
            .into_iter()
            .filter(|key| self.known(key).last.is_some_and(|said| !said.is_final()))
            .collect();
        let mut listed: Vec<Value> = self.now.values().map(|(_, object)| object.clone()).collect();
        listed.sort_by_key(Value::to_string);
        for object in listed {
            let object = serde_json::from_value::<JobObject>(object);
            let Some(state) = object.ok().and_then(|object| self.read(&object)) else { continue };
            let key = (state.template.clone(), state.name.clone());
            let known = if open.contains(&key) { self.known(&key) } else { SubjectState::default() };
            open.retain(|other| *other != key);
            self.offer(replica, state, Source::Watch, Some(known));
        }
        for key in open {
            let known = self.known(&key);
            let Some((_, event, hash)) = self.stream[&key].last().cloned() else { continue };
            self.offer(replica, JobState::from_last_event(event, hash), Source::Watch, Some(known));
        }
    }

    fn timers(&mut self, replica: usize) {
        for (key, uid, aside) in std::mem::take(&mut self.replicas[replica].beside) {
            let beside = match aside {
                Effect::Log { pod, name, .. } => EffectResult::Log(pod, Some(name.repeat(3))),
                Effect::Wait(timer, _) => EffectResult::Waited(timer),
            };
            if let Some(lane) = self.replicas[replica].lanes.get_mut(&key) {
                lane.beside(&uid, beside);
            }
        }
    }

    /// All that there is to do is done, but what is to be waited for.
    fn advance(&mut self, replica: usize) {
        for key in self.replicas[replica].lanes.keys().cloned().collect::<Vec<_>>() {
            for steps in 0.. {
                assert!(steps < STEPS, "it does not end");
                let Replica { lanes, pods_listed, beside, underway } = &mut self.replicas[replica];
                let Some(lane) = lanes.get_mut(&key) else { break };
                drop(lane.served());
                let next = lane.next(*pods_listed);
                if let Some((uid, asides)) = lane.asides() {
                    beside.extend(asides.into_iter().map(|aside| (key.clone(), uid.clone(), aside)));
                }
                let Some((step, state, known)) = next else {
                    if lane.is_over(true) {
                        lanes.remove(&key);
                    }
                    break;
                };
                let waits = step == Action::AwaitPrevious;
                if self.paused {
                    underway.push((key.clone(), step, state, known));
                    break;
                }
                self.done(replica, &key, step, state, known);
                if waits {
                    break;
                }
            }
        }
    }

    fn go(&mut self) {
        self.paused = false;
        for replica in 0..2 {
            for (key, step, state, known) in std::mem::take(&mut self.replicas[replica].underway) {
                self.done(replica, &key, step, state, known);
            }
            self.advance(replica);
        }
    }

    fn done(&mut self, replica: usize, key: &SubjectKey, step: Action, state: JobState, known: SubjectState) {
        let done = self.perform(key, step, state, known);
        if let Some(lane) = self.replicas[replica].lanes.get_mut(key) {
            lane.done(done);
        }
    }

    fn perform(
        &mut self,
        key: &SubjectKey,
        step: Action,
        state: JobState,
        known: SubjectState,
    ) -> ActionResult {
        match step {
            Action::Publish(event, outcome) => {
                self.publish(key, &state, &known, EventBody::Of(event, outcome))
            }
            Action::PublishPending(telling) => self.publish(key, &state, &known, telling.into()),
            Action::AwaitPrevious => ActionResult::Read(self.known(key)),
            Action::ClosePrevious => match (self.known(key), self.stream.get(key).and_then(|all| all.last()))
            {
                (known, Some((_, event, hash)))
                    if known.last.as_ref().is_some_and(|said| !said.is_final() && said.uid != state.uid) =>
                {
                    let mut earlier = JobState::from_last_event(event.clone(), hash.clone());
                    earlier.cancelled = self.cancelled;
                    let outcome = earlier.outcome().unwrap_or_else(|| earlier.outcome_of_deletion());
                    self.publish(
                        key,
                        &earlier,
                        &known,
                        EventBody::Of(EventType::Outcome, Some(Box::new(outcome))),
                    )
                }
                (known, _) => ActionResult::Read(known),
            },
            Action::VerifyDeleted => {
                let is_there = self.now.get(state.name.as_ref()).is_some_and(|(uid, _)| *uid == state.uid);
                ActionResult::Verified(match (is_there, self.cancelled) {
                    (true, _) => DeletionCheck::No,
                    (false, true) => DeletionCheck::Cancelled,
                    (false, false) => DeletionCheck::Deleted,
                })
            }
            Action::Retire => {
                let said = self.stream.get(key).into_iter().flatten();
                let mut outcomes = said.filter(|(_, event, _)| event.event == EventType::Outcome);
                assert!(outcomes.any(|(_, event, _)| event.uid == state.uid), "retired without an outcome");
                ActionResult::Retired
            }
        }
    }

    fn known(&self, key: &SubjectKey) -> SubjectState {
        let last = self.stream.get(key).and_then(|all| all.last());
        last.map_or_else(SubjectState::default, |(sequence, event, _)| SubjectState {
            sequence: *sequence,
            last: Some(LastEvent {
                uid: event.uid.clone(),
                resource_version: event.resource_version.parse().unwrap(),
                event: event.event,
            }),
        })
    }

    /// Stored where the fence lets it through; then the promises are looked at.
    fn publish(
        &mut self,
        key: &SubjectKey,
        state: &JobState,
        known: &SubjectState,
        word: EventBody,
    ) -> ActionResult {
        let last = self.known(key);
        if last.sequence != known.sequence {
            return ActionResult::Read(last);
        }
        let said = LastEvent {
            uid: state.uid.clone(),
            resource_version: resource_version(known.last.as_ref(), state),
            event: word.event(),
        };
        let event = message(state, &said, &word.fitting(MAX_PAYLOAD), TIME);
        self.promises(key, &event);
        event.event.as_str().hash(&mut self.shown);
        event
            .outcome
            .as_ref()
            .map(|outcome| (outcome.result.to_string(), outcome.attempts.len()))
            .hash(&mut self.shown);
        self.sequence += 1;
        self.stream.entry(key.clone()).or_default().push((self.sequence, event, state.request_hash.clone()));
        ActionResult::Published(SubjectState { sequence: self.sequence, last: Some(said) })
    }

    fn promises(&self, key: &SubjectKey, event: &StatusEvent) {
        assert_eq!((&event.template, &event.name), (&key.0, &key.1), "on its own subject");
        assert_eq!(event.outcome.is_some(), event.event == EventType::Outcome);
        let bytes = serde_json::to_vec(event).unwrap();
        let read: StatusEvent = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(&read, event, "it is read as it was written");
        let before: Vec<&StatusEvent> =
            self.stream.get(key).into_iter().flatten().map(|(_, event, _)| event).collect();
        let of_it = || before.iter().filter(|other| other.uid == event.uid);
        assert!(
            of_it().all(|other| other.event != EventType::Outcome),
            "{} after the outcome",
            event.event.as_str()
        );
        let version = |event: &StatusEvent| event.resource_version.parse::<u64>().unwrap();
        let newest = before.iter().map(|other| version(other)).max().unwrap_or_default();
        match event.event {
            EventType::Added | EventType::Modified | EventType::Deleted => {
                assert!(
                    version(event) > newest,
                    "{} of {} after {newest}",
                    event.event.as_str(),
                    version(event)
                );
            }
            _ => assert!(version(event) >= newest || of_it().count() == 0, "it goes back"),
        }
        assert_eq!(
            event.event == EventType::Added,
            of_it().count() == 0 && event.event != EventType::Deleted
        );
    }

    /// All is told, and a start compares: who is gone has an outcome.
    fn ends(&mut self) {
        self.release(0);
        self.go();
        self.replicas = [Replica::default(), Replica::default()];
        self.compare(0);
        self.advance(0);
        self.replicas[0].pods_listed = true;
        for _ in 0..4 {
            self.timers(0);
            self.advance(0);
        }
        for events in self.stream.values() {
            let ended: HashSet<&str> = events
                .iter()
                .filter(|(_, event, _)| event.event == EventType::Outcome)
                .map(|(_, event, _)| event.uid.as_str())
                .collect();
            for (_, event, _) in events {
                let is_now = self.now.get(event.name.as_ref()).is_some_and(|(uid, _)| *uid == event.uid);
                assert!(
                    is_now || ended.contains(event.uid.as_str()),
                    "{} is gone without an outcome",
                    event.uid
                );
            }
        }
    }
}

fn check(input: &[u8]) -> u64 {
    let mut world = World::default();
    input.split(|byte| *byte == b'\n').take(200).for_each(|line| world.happens(line));
    world.ends();
    world.shown.finish()
}

#[test]
fn whatever_the_watches_bring() {
    Target { name: "watches", seeds: vec![], runs: 400, check }.fuzz();
}
