//! Fuzzes two replicas, a cluster and `JOB_STATUS` with arbitrary watch events.
//!
//! An input is a sequence of lines. `{"type":"ADDED","object":{...},"to":0}` is a watch event of a
//! Job, a pod or a Kubernetes Event for one replica, or for both without `to`. `CREATED` is the
//! response to a create. `{"do":"..."}` is a step of [`Simulation::perform_step`]. The cluster
//! assigns resourceVersions in the order of the lines; the input decides which replica observes
//! what, and when.

mod actions;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    hash::{DefaultHasher, Hasher},
    sync::Arc,
};

use fastrand::Rng;
use serde_json::Value;

use crate::{
    contract::{
        event::{EventType, StatusEvent},
        job::{JobObject, JobState, LABEL_TEMPLATE, Presence},
        names::{JobName, TemplateName},
    },
    fuzz::Target,
    status::{
        explain::{event, pod},
        pod_observation::PodObservation,
        pod_tracker::Effect,
        reconcile::{Action, Source, needs_reconcile},
        subject::{SubjectKey, SubjectState},
        subject_queue::{EffectResult, SubjectQueue},
    },
};

/// `JOB_STATUS`, the cluster, and two replicas that may both act as the leader.
#[derive(Default)]
struct Simulation {
    /// The sequence, the event and the request hash of each message.
    stream: BTreeMap<SubjectKey, Vec<(u64, StatusEvent, String)>>,
    last_sequence: u64,
    /// The uid and the object of each existing Job, by name.
    jobs: HashMap<String, (String, Value)>,
    /// The last resourceVersion of every Job that ever existed, by name and uid.
    versions: HashMap<(String, String), u64>,
    last_version: u64,
    /// Whether the cancellation of every Job is requested.
    cancelled: bool,
    coalesce: bool,
    replicas: [Replica; 2],
    /// Actions start, but do not complete.
    paused: bool,
    /// Observations that are delayed.
    held: Option<Vec<(usize, Observation)>>,
    /// The hash of the published events. The fuzzer keeps an input that yields a new hash.
    coverage: DefaultHasher,
}

#[derive(Default)]
struct Replica {
    queues: BTreeMap<SubjectKey, SubjectQueue<u8>>,
    pods_listed: bool,
    effects: Vec<(SubjectKey, String, Effect)>,
    in_flight: Vec<(SubjectKey, Action, Arc<JobState>, SubjectState)>,
}

#[derive(Clone)]
enum Observation {
    Job(Box<JobObject>, Presence, Source),
    Pod(PodObservation),
}

impl Simulation {
    fn process_line(&mut self, line: &[u8]) {
        // The client decodes any object.
        let _ = serde_json::from_slice::<JobObject>(line);
        let _ = serde_json::from_slice::<pod::PodObject>(line);
        let Ok(mut line) = serde_json::from_slice::<Value>(line) else { return };
        if !line.is_object() {
            return;
        }
        if let Some(step) = line["do"].as_str().map(str::to_owned) {
            return self.perform_step(&step, &line);
        }
        let (type_, kind) = (line["type"].take(), line["object"]["kind"].as_str().map(str::to_owned));
        let type_ = type_.as_str().unwrap_or_default();
        let observation = match kind.as_deref() {
            Some("Pod") => {
                let Ok(found) = serde_json::from_value(line["object"].take()) else { return };
                let Some(observation) = pod::observation(&found, type_ == "DELETED") else { return };
                Observation::Pod(observation)
            }
            Some("Event") => {
                let Ok(found) = serde_json::from_value(line["object"].take()) else { return };
                let _ = (event::finding(&found), event::event_time(&found));
                return;
            }
            _ => {
                let object = self.write_job(line["object"].take(), type_);
                let Ok(object) = serde_json::from_value(object) else { return };
                match type_ {
                    "DELETED" => Observation::Job(object, Presence::DeletedUnverified, Source::Watch),
                    "CREATED" => Observation::Job(object, Presence::Present, Source::Create),
                    _ => Observation::Job(object, Presence::Present, Source::Watch),
                }
            }
        };
        let to = line["to"].as_u64();
        for replica in (0..2).filter(|replica| to.is_none_or(|to| to % 2 == *replica as u64)) {
            match &mut self.held {
                Some(held) => held.push((replica, observation.clone())),
                None => self.observe(replica, observation.clone()),
            }
        }
    }

    /// Writes a Job to the cluster. A Job that was replaced or deleted keeps its last version.
    fn write_job(&mut self, mut object: Value, type_: &str) -> Value {
        let text = |object: &Value, key: &str| object["metadata"][key].as_str().map(str::to_owned);
        let (Some(name), Some(uid)) = (text(&object, "name"), text(&object, "uid")) else { return object };
        let is_number =
            text(&object, "resourceVersion").is_some_and(|version| version.parse::<u64>().is_ok());
        let exists = self.jobs.get(&name).is_some_and(|(current, _)| *current == uid);
        let job = (name.clone(), uid.clone());
        if exists || !self.versions.contains_key(&job) {
            self.last_version += 1;
            self.versions.insert(job.clone(), self.last_version);
            if type_ == "DELETED" {
                self.jobs.remove(&name);
            } else {
                self.jobs.insert(name, (uid, Value::Null));
            }
        }
        if is_number {
            object["metadata"]["resourceVersion"] = self.versions[&job].to_string().into();
        }
        if let Some((uid, current)) = self.jobs.get_mut(&job.0)
            && *uid == job.1
        {
            current.clone_from(&object);
        }
        object
    }

    /// Performs a step other than a watch event. The names of the steps are part of the corpus.
    fn perform_step(&mut self, step: &str, line: &Value) {
        let to = usize::try_from(line["to"].as_u64().unwrap_or_default() % 2).unwrap_or_default();
        let replica = &mut self.replicas[to];
        match step {
            "crash" => *replica = Replica::default(),
            "compare" => self.resync(to),
            "hand-over" => replica.queues.retain(|_, queue| {
                queue.step_down();
                !queue.is_idle(false)
            }),
            "cancel" => self.cancelled = !self.cancelled,
            "crowd" => self.coalesce = !self.coalesce,
            "pause" => self.paused = true,
            "go" => self.resume(),
            "hold" => self.held = Some(self.held.take().unwrap_or_default()),
            "release" => self.release_held(line["seed"].as_u64().unwrap_or_default()),
            "timers" => self.complete_effects(to),
            "pods-listing" => replica.queues.values_mut().for_each(SubjectQueue::pods_listing),
            "pods-listed" => {
                replica.pods_listed = true;
                replica.queues.values_mut().for_each(SubjectQueue::pods_listed);
            }
            "nobody-waits" => {
                replica.queues.values_mut().for_each(|queue| queue.retain_waiters(|_| false));
            }
            _ => return,
        }
        self.advance(to);
    }

    fn release_held(&mut self, seed: u64) {
        let mut held = self.held.take().unwrap_or_default();
        if seed > 0 {
            Rng::with_seed(seed).shuffle(&mut held);
        }
        for (replica, observation) in held {
            self.observe(replica, observation);
        }
    }

    fn observe(&mut self, replica: usize, observation: Observation) {
        match observation {
            Observation::Job(object, presence, source) => {
                if let Some(job) = self.read_job(&object) {
                    self.enqueue(replica, job.with_presence(presence), source, None);
                }
            }
            Observation::Pod(PodObservation { template, name, uid, state }) => {
                let queues = &mut self.replicas[replica].queues;
                let queue = template.and_then(|template| queues.get_mut(&(template, name)));
                if let Some(queue) = queue {
                    queue.observe_pod(uid, state);
                }
            }
        }
        self.advance(replica);
    }

    /// Reads a Job. If it lost its annotations, its last event replaces them.
    fn read_job(&self, object: &JobObject) -> Option<JobState> {
        if let Ok(job) = JobState::from_object(object) {
            return Some(job);
        }
        let name = JobName::try_from(object.metadata.name.as_deref()?).ok()?;
        let template = object.metadata.labels.as_ref()?.get(LABEL_TEMPLATE)?;
        let (_, event, hash) =
            self.stream.get(&(TemplateName::try_from(template.as_str()).ok()?, name))?.last()?;
        JobState::from_changed_object(object, event.clone(), hash.clone())
    }

    fn enqueue(&mut self, replica: usize, job: JobState, source: Source, subject: Option<SubjectState>) {
        let key = (job.template.clone(), job.name.clone());
        let Replica { queues, .. } = &mut self.replicas[replica];
        let last = subject.as_ref().and_then(|subject| subject.last.as_ref());
        if !needs_reconcile(last, &job) && !queues.contains_key(&key) {
            return;
        }
        let queue = queues.entry(key).or_insert_with(|| SubjectQueue::new(SubjectState::default()));
        if let Some(subject) = subject {
            queue.update(subject);
        }
        if source == Source::Create {
            queue.add_waiter(job.uid.clone(), 0);
        }
        if self.coalesce {
            queue.enqueue_coalesced(job, source);
        } else {
            queue.enqueue(job, source);
        }
    }

    /// Scans the open subjects, lists the Jobs, and enqueues the Jobs that the list misses.
    fn resync(&mut self, replica: usize) {
        let keys: Vec<SubjectKey> = self.stream.keys().cloned().collect();
        let mut open: Vec<SubjectKey> = keys
            .into_iter()
            .filter(|key| self.subject(key).last.is_some_and(|last| !last.is_final()))
            .collect();
        let mut listed: Vec<Value> = self.jobs.values().map(|(_, object)| object.clone()).collect();
        listed.sort_by_key(Value::to_string);
        for object in listed {
            let object = serde_json::from_value::<JobObject>(object);
            let Some(job) = object.ok().and_then(|object| self.read_job(&object)) else { continue };
            let key = (job.template.clone(), job.name.clone());
            let subject = if open.contains(&key) { self.subject(&key) } else { SubjectState::default() };
            open.retain(|other| *other != key);
            self.enqueue(replica, job, Source::Watch, Some(subject));
        }
        for key in open {
            let subject = self.subject(&key);
            let Some((_, event, hash)) = self.stream[&key].last().cloned() else { continue };
            self.enqueue(replica, JobState::from_last_event(event, hash), Source::Watch, Some(subject));
        }
    }

    fn complete_effects(&mut self, replica: usize) {
        for (key, uid, effect) in std::mem::take(&mut self.replicas[replica].effects) {
            let result = match effect {
                Effect::FetchLog { pod, name, .. } => EffectResult::LogTail(pod, Some(name.repeat(3))),
                Effect::Wait(timer, _) => EffectResult::TimerExpired(timer),
                Effect::ListEnded => EffectResult::EndedPods(vec![]),
            };
            if let Some(queue) = self.replicas[replica].queues.get_mut(&key) {
                queue.complete_effect(&uid, result);
            }
        }
    }

    /// Delivers everything, restarts and resyncs. Then every deleted Job must have an outcome.
    fn finish(&mut self) {
        self.release_held(0);
        self.resume();
        self.replicas = [Replica::default(), Replica::default()];
        self.resync(0);
        self.advance(0);
        self.replicas[0].pods_listed = true;
        for _ in 0..4 {
            self.complete_effects(0);
            self.advance(0);
        }
        for events in self.stream.values() {
            let ended: HashSet<&str> = events
                .iter()
                .filter(|(_, event, _)| event.event == EventType::Outcome)
                .map(|(_, event, _)| event.uid.as_str())
                .collect();
            for (_, event, _) in events {
                let exists = self.jobs.get(event.name.as_ref()).is_some_and(|(uid, _)| *uid == event.uid);
                assert!(
                    exists || ended.contains(event.uid.as_str()),
                    "Job {} is deleted and has no outcome",
                    event.uid
                );
            }
        }
    }
}

fn check(input: &[u8]) -> u64 {
    let mut simulation = Simulation::default();
    input.split(|byte| *byte == b'\n').take(200).for_each(|line| simulation.process_line(line));
    simulation.finish();
    simulation.coverage.finish()
}

#[test]
fn any_watch_events_yield_ordered_events_and_one_outcome_per_job() {
    Target { name: "watches", seeds: vec![], runs: 400, check }.fuzz();
}
