//! Owns the queue of every Job with work left, and runs the actions and effects that they ask for.
//!
//! Observations of the watches count only while this replica is the leader; a created Job's first
//! event is published by the replica that created it. A Job has one action in flight.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use dispatcher_core::{
    contract::{job::JobState, names::TemplateName},
    status::{
        SubjectKey, SubjectState,
        pod_observation::PodObservation,
        pod_tracker::Effect,
        reconcile::{self, Action, Source},
        subject_queue::{ActionResult, EffectResult, HIGH_WATERMARK, SubjectQueue},
        unmatched::UnmatchedObservations,
    },
};
use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    leadership::Leadership,
    status::{
        handle::{JobInput, StatusInput},
        refused::{Completion, RefusedJob, RefusedJobs},
        runner::ActionRunner,
    },
};

/// The longest time that outcomes wait for the first list of the pods.
const PODS_LIST_DEADLINE: Duration = Duration::from_secs(30);

/// A queue with the callers that wait for a Job's first event.
type WaiterQueue = SubjectQueue<oneshot::Sender<()>>;
type InFlightActions = FuturesUnordered<BoxFuture<'static, (SubjectKey, Completion)>>;
/// With the uid of the Job that an effect belongs to.
type InFlightEffects = FuturesUnordered<BoxFuture<'static, (SubjectKey, String, EffectResult)>>;

/// All queues, with the actions and effects in flight.
pub(super) struct StatusReconciler {
    runner: Arc<ActionRunner>,
    /// Every unfinished Job has one, so the table holds no more than a pointer for a free place.
    queues: HashMap<SubjectKey, Box<WaiterQueue>>,
    /// Queued observations of all queues together.
    queued: usize,
    /// Every template that ever had a queue.
    templates: BTreeSet<TemplateName>,
    unmatched: UnmatchedObservations,
    leadership: Leadership,
    /// Cancelled when this replica stops being the leader.
    term: CancellationToken,
    /// Whether the pods are listed in this term; outcomes wait for that until `pods_deadline`.
    pods_listed: bool,
    pods_deadline: Instant,
    actions: InFlightActions,
    effects: InFlightEffects,
    refused: RefusedJobs,
}

impl StatusReconciler {
    pub(super) fn new(runner: Arc<ActionRunner>, leadership: Leadership) -> Self {
        Self {
            runner,
            queues: HashMap::new(),
            queued: 0,
            templates: BTreeSet::new(),
            unmatched: UnmatchedObservations::default(),
            leadership,
            term: CancellationToken::new(),
            pods_listed: false,
            pods_deadline: Instant::now() + PODS_LIST_DEADLINE,
            actions: InFlightActions::new(),
            effects: InFlightEffects::new(),
            refused: RefusedJobs::default(),
        }
    }

    /// Runs until every handle is dropped and the actions in flight are complete. Effects in flight
    /// are dropped: the resync of the next leader starts them again.
    pub(super) async fn run(mut self, mut inputs: mpsc::Receiver<StatusInput>) {
        let mut open = true;
        while open || !self.actions.is_empty() {
            let key = tokio::select! {
                input = inputs.recv(), if open => match input {
                    None => {
                        open = false;
                        None
                    }
                    Some(input) => self.accept(input),
                },
                Some((key, completion)) = self.actions.next() => {
                    self.complete(&key, completion);
                    Some(key)
                }
                Some((key, RefusedJob { job, subject, .. })) = self.refused.next() => {
                    let subject = (!self.queues.contains_key(&key)).then_some(subject);
                    let job = JobState::clone(&job);
                    self.enqueue(JobInput { job, source: Source::Watch, subject, stored: None })
                }
                Some((key, uid, result)) = self.effects.next() => {
                    if let Some(queue) = self.queues.get_mut(&key) {
                        queue.complete_effect(&uid, result);
                    }
                    Some(key)
                }
                () = self.leadership.changed() => {
                    self.change_term();
                    None
                }
                () = sleep_until(self.pods_deadline), if !self.pods_listed => {
                    if self.leadership.is_ours() {
                        tracing::warn!("pods not listed in time: outcomes are published without attempts");
                    }
                    self.release_outcomes();
                    None
                }
            };
            if let Some(key) = key {
                self.advance(&key);
            }
        }
    }

    /// Hands an input to its queue. Returns the key of a queue that has to advance.
    fn accept(&mut self, input: StatusInput) -> Option<SubjectKey> {
        match input {
            StatusInput::Job(input) if input.source == Source::Create => self.enqueue(*input),
            StatusInput::PendingJob { key, request_id, answer } => {
                // A caller that stopped waiting asks again at the next delivery.
                let _ = answer.send(self.queues.get(&key).and_then(|queue| queue.pending_job(&request_id)));
                None
            }
            // Sent before this replica lost the leadership.
            _ if !self.leadership.is_ours() => None,
            StatusInput::Job(input) => self.enqueue(*input),
            StatusInput::Pod(observation) => self.observe_pod(observation),
            StatusInput::PodsListing => {
                self.queues.values_mut().for_each(|queue| queue.pods_listing());
                None
            }
            StatusInput::PodsListed => {
                self.queues.values_mut().for_each(|queue| queue.pods_listed());
                self.release_outcomes();
                None
            }
        }
    }

    /// Records the end of an action.
    fn complete(&mut self, key: &SubjectKey, completion: Completion) {
        let Completion { result, made, observed, refused } = completion;
        made.into_iter().for_each(|uid| self.refused.remove(&uid));
        refused.into_iter().for_each(|job| self.refused.add(key.clone(), job));
        self.update(key, |queue| {
            queue.complete(result);
            observed.into_iter().for_each(|job| queue.enqueue(job, Source::Watch));
        });
    }

    /// Lets outcomes pass that waited for the list of the pods.
    fn release_outcomes(&mut self) {
        self.pods_listed = true;
        for key in self.queues.keys().cloned().collect::<Vec<_>>() {
            self.advance(&key);
        }
    }

    /// Starts a term, or drops what the next leader publishes.
    fn change_term(&mut self) {
        if self.leadership.is_ours() {
            self.pods_listed = false;
            self.pods_deadline = Instant::now() + PODS_LIST_DEADLINE;
            return;
        }
        std::mem::replace(&mut self.term, CancellationToken::new()).cancel();
        self.queues.retain(|_, queue| {
            queue.step_down();
            !queue.is_idle(false)
        });
        self.queued = self.queues.values().map(|queue| queue.len()).sum();
        self.unmatched = UnmatchedObservations::default();
        self.refused.clear();
    }

    fn enqueue(&mut self, input: JobInput) -> Option<SubjectKey> {
        let JobInput { job, source, subject, stored } = input;
        let mut key = (job.template.clone(), job.name.clone());
        let last = subject.as_ref().and_then(|subject| subject.last.as_ref());
        if !reconcile::needs_reconcile(last, &job) && !self.queues.contains_key(&key) {
            // Every event of the Job is stored.
            let _ = stored.map(|stored| stored.send(()));
            return None;
        }
        // All queues share the name of their template.
        if let Some(template) = self.templates.get(&key.0) {
            key.0 = template.clone();
        } else {
            self.templates.insert(key.0.clone());
        }
        let unmatched = &mut self.unmatched;
        let queue = self.queues.entry(key.clone()).or_insert_with(|| {
            let mut queue = Box::new(SubjectQueue::new(SubjectState::default()));
            unmatched.take(&key.1).into_iter().for_each(|(uid, state)| queue.observe_pod(uid, state));
            queue
        });
        if let Some(subject) = subject {
            queue.update(subject);
        }
        if let Some(stored) = stored {
            queue.add_waiter(job.uid.clone(), stored);
        }
        if self.queued >= HIGH_WATERMARK {
            self.update(&key, |queue| queue.enqueue_coalesced(job, source));
        } else {
            self.update(&key, |queue| queue.enqueue(job, source));
        }
        Some(key)
    }

    /// Changes a queue, and keeps the count of queued observations.
    fn update<T>(&mut self, key: &SubjectKey, change: impl FnOnce(&mut WaiterQueue) -> T) -> Option<T> {
        let queue = self.queues.get_mut(key)?;
        let before = queue.len();
        let value = change(queue);
        self.queued = (self.queued + queue.len()).saturating_sub(before);
        Some(value)
    }

    fn observe_pod(&mut self, observation: PodObservation) -> Option<SubjectKey> {
        let PodObservation { template, name, uid, state } = observation;
        let Some(template) = template else {
            // A Kubernetes Event names the Job, but not its template.
            let mut keys = self.templates.iter().map(|template| (template.clone(), name.clone()));
            let key = keys.find(|key| self.queues.get(key).is_some_and(|queue| queue.contains_job(&uid)));
            let Some((key, queue)) = key.and_then(|key| Some((key.clone(), self.queues.get_mut(&key)?)))
            else {
                self.unmatched.insert(name, uid, state);
                return None;
            };
            queue.observe_pod(uid, state);
            return Some(key);
        };
        let key = (template, name);
        if let Some(queue) = self.queues.get_mut(&key) {
            queue.observe_pod(uid, state);
            Some(key)
        } else {
            self.unmatched.insert(key.1, uid, state);
            None
        }
    }

    /// Starts the queue's next action and its effects, answers its waiters, and drops it when it is
    /// idle.
    fn advance(&mut self, key: &SubjectKey) {
        let Some(queue) = self.queues.get_mut(key) else { return };
        for waiter in queue.take_served() {
            // A caller that stopped waiting gets its request delivered again.
            let _ = waiter.send(());
        }
        queue.retain_waiters(|waiter| !waiter.is_closed());
        let before = queue.len();
        let next = queue.next(self.pods_listed);
        self.queued = (self.queued + queue.len()).saturating_sub(before);
        let effects = queue.take_effects();
        let (source, is_idle) = (queue.next_source(), queue.is_idle(self.leadership.is_ours()));
        if let Some((action, job, subject)) = next {
            self.start_action(key.clone(), source, action, job, subject);
        } else if is_idle {
            self.queues.remove(key);
        }
        if let Some((uid, effects)) = effects {
            effects.into_iter().for_each(|effect| self.start_effect(key.clone(), uid.clone(), effect));
        }
        tracing::trace!(queues = self.queues.len(), actions = self.actions.len());
    }

    /// Actions for observations of the watches end with the term.
    fn start_action(
        &self,
        key: SubjectKey,
        source: Option<Source>,
        action: Action,
        job: Arc<JobState>,
        subject: SubjectState,
    ) {
        let runner = self.runner.clone();
        let term = (source == Some(Source::Watch)).then(|| self.term.clone());
        self.actions.push(Box::pin(async move {
            let running = runner.run(action, job, subject);
            let completion = match term {
                Some(term) => {
                    let completion = term.run_until_cancelled(running).await;
                    completion.unwrap_or_else(|| ActionResult::Abandoned.into())
                }
                None => running.await,
            };
            (key, completion)
        }));
    }

    fn start_effect(&self, key: SubjectKey, uid: String, effect: Effect) {
        self.effects.push(match effect {
            Effect::FetchLog { pod, name, container } => {
                let tail = self.runner.log_tail(&key.0, &name, &container);
                Box::pin(async move { (key, uid, EffectResult::LogTail(pod, tail.await)) })
            }
            Effect::ListEnded => {
                let pods = self.runner.ended_pods(&uid);
                Box::pin(async move { (key, uid, EffectResult::EndedPods(pods.await)) })
            }
            Effect::Wait(timer, duration) => Box::pin(async move {
                sleep(duration).await;
                (key, uid, EffectResult::TimerExpired(timer))
            }),
        });
    }
}
