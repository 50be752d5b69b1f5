//! The writer's desk: every lane, what is under way for them, and what is done beside.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    leader::Leadership,
    status::{JobInput, StatusInput, runner::ActionRunner},
};
use dispatcher_core::contract::names::{JobName, TemplateName};
use dispatcher_core::status::{
    SubjectState,
    pod_tracker::{Effect, PodObservation},
    reconcile::{self, Source},
    subject_queue::{ActionResult, EffectResult, HIGH_WATERMARK, SubjectQueue},
    unmatched::UnmatchedObservations,
};

pub(super) type Key = (TemplateName, JobName);
/// How long outcomes wait for the pods to be listed; after that they go without what that would tell.
const PODS_LISTED: Duration = Duration::from_secs(30);

/// A lane, with those who wait for a first event.
type Waited = SubjectQueue<oneshot::Sender<()>>;
type InFlightActions = FuturesUnordered<BoxFuture<'static, (Key, ActionResult)>>;
/// With the uid of the Job that it is for.
type InFlightEffects = FuturesUnordered<BoxFuture<'static, (Key, String, EffectResult)>>;

/// See the module.
pub(super) struct StatusReconciler {
    work: Arc<ActionRunner>,
    lanes: HashMap<Key, Waited>,
    /// States that wait, in all lanes together.
    waiting: usize,
    /// The templates that there ever were lanes of.
    templates: BTreeSet<TemplateName>,
    early: UnmatchedObservations,
    leadership: Leadership,
    /// Ends with this replica's time as the one that reports.
    term: CancellationToken,
    /// Whether the pods are listed since this replica began to report, and until when outcomes wait for that.
    pods_listed: bool,
    pods_by: Instant,
    underway: InFlightActions,
    besides: InFlightEffects,
}

impl StatusReconciler {
    pub(super) fn new(work: Arc<ActionRunner>, leadership: Leadership) -> Self {
        Self {
            work,
            lanes: HashMap::new(),
            waiting: 0,
            templates: BTreeSet::new(),
            early: UnmatchedObservations::default(),
            leadership,
            term: CancellationToken::new(),
            pods_listed: false,
            pods_by: Instant::now() + PODS_LISTED,
            underway: InFlightActions::new(),
            besides: InFlightEffects::new(),
        }
    }

    /// Works until nobody brings anything more and what was under way has ended. What is done beside is not waited for:
    /// what waits for it is told after the next start.
    pub(super) async fn run(mut self, mut offers: mpsc::Receiver<StatusInput>) {
        let mut open = true;
        while open || !self.underway.is_empty() {
            let key = tokio::select! {
                offer = offers.recv(), if open => match offer {
                    None => {
                        open = false;
                        None
                    }
                    Some(offer) => self.accept(offer),
                },
                Some((key, done)) = self.underway.next() => {
                    self.counted(&key, |lane| lane.complete(done));
                    Some(key)
                }
                Some((key, uid, beside)) = self.besides.next() => {
                    if let Some(lane) = self.lanes.get_mut(&key) {
                        lane.complete_effect(&uid, beside);
                    }
                    Some(key)
                }
                () = self.leadership.changed() => {
                    self.hand_over();
                    None
                }
                () = sleep_until(self.pods_by), if !self.pods_listed => {
                    if self.leadership.is_ours() {
                        tracing::warn!("the pods cannot be listed: outcomes are told without what they say");
                    }
                    self.pods_listed();
                    None
                }
            };
            if let Some(key) = key {
                self.advance(&key);
            }
        }
    }

    /// Gives the offer to its lane; the lane that has to advance, where there is one.
    fn accept(&mut self, offer: StatusInput) -> Option<Key> {
        match offer {
            StatusInput::State(offer) if offer.source == Source::Create => self.state(offer),
            StatusInput::JobOf { job, request_id, answer } => {
                // Whoever stopped waiting asks again with the next delivery.
                let _ = answer.send(self.lanes.get(&job).and_then(|lane| lane.pending_job(&request_id)));
                None
            }
            // On its way when this replica ceased to report.
            _ if !self.leadership.is_ours() => None,
            StatusInput::State(offer) => self.state(offer),
            StatusInput::PodObservation(sign) => self.sign(sign),
            StatusInput::PodsListing => {
                self.lanes.values_mut().for_each(SubjectQueue::pods_listing);
                None
            }
            StatusInput::PodsListed => {
                self.pods_listed();
                None
            }
        }
    }

    /// No outcome waits for the list of pods any more.
    fn pods_listed(&mut self) {
        self.pods_listed = true;
        for key in self.lanes.keys().cloned().collect::<Vec<_>>() {
            self.advance(&key);
        }
    }

    /// This replica begins to report, or ceases to: then what is another one's to say is dropped.
    fn hand_over(&mut self) {
        if self.leadership.is_ours() {
            self.pods_listed = false;
            self.pods_by = Instant::now() + PODS_LISTED;
            return;
        }
        std::mem::replace(&mut self.term, CancellationToken::new()).cancel();
        self.lanes.retain(|_, lane| {
            lane.step_down();
            !lane.is_idle(false)
        });
        self.waiting = self.lanes.values().map(SubjectQueue::len).sum();
        self.early = UnmatchedObservations::default();
    }

    fn state(&mut self, offer: JobInput) -> Option<Key> {
        let JobInput { state, source, known, said } = offer;
        let key = (state.template.clone(), state.name.clone());
        let last = known.as_ref().and_then(|known| known.last.as_ref());
        if !reconcile::needs_reconcile(last, &state) && !self.lanes.contains_key(&key) {
            // What was to be said of it is said: whoever waits for that is answered.
            let _ = said.map(|said| said.send(()));
            return None;
        }
        if !self.templates.contains(&key.0) {
            self.templates.insert(key.0.clone());
        }
        let early = &mut self.early;
        let lane = self.lanes.entry(key.clone()).or_insert_with(|| {
            let mut lane = SubjectQueue::new(SubjectState::default());
            early.take(&key).into_iter().for_each(|(uid, tells)| lane.observe_pod(uid, tells));
            lane
        });
        if let Some(known) = known {
            lane.update(known);
        }
        if let Some(said) = said {
            lane.add_waiter(state.uid.clone(), said);
        }
        let crowd = self.waiting >= HIGH_WATERMARK;
        self.counted(&key, |lane| match crowd {
            true => lane.enqueue_coalesced(state, source),
            false => lane.enqueue(state, source),
        });
        Some(key)
    }

    /// Does something with a lane, and counts what waits in it.
    fn counted<T>(&mut self, key: &Key, work: impl FnOnce(&mut Waited) -> T) -> Option<T> {
        let lane = self.lanes.get_mut(key)?;
        let before = lane.len();
        let done = work(lane);
        self.waiting = (self.waiting + lane.len()).saturating_sub(before);
        Some(done)
    }

    fn sign(&mut self, sign: PodObservation) -> Option<Key> {
        let PodObservation { template, name, uid, state: tells } = sign;
        let Some(template) = template else {
            // An Event tells no template: the lane with that very Job is looked for.
            let mut keys = self.templates.iter().map(|template| (template.clone(), name.clone()));
            let key = keys.find(|key| self.lanes.get(key).is_some_and(|lane| lane.contains_job(&uid)))?;
            self.lanes.get_mut(&key)?.observe_pod(uid, tells);
            return Some(key);
        };
        let key = (template, name);
        match self.lanes.get_mut(&key) {
            Some(lane) => {
                lane.observe_pod(uid, tells);
                Some(key)
            }
            None => {
                self.early.insert(key, uid, tells);
                None
            }
        }
    }

    /// Starts the lane's next piece of work, serves who waited, and drops the lane when it is over. What the watches
    /// brought ends with this replica's term.
    fn advance(&mut self, key: &Key) {
        let Some(lane) = self.lanes.get_mut(key) else { return };
        for waiter in lane.take_served() {
            // Whoever stopped waiting has its message delivered again.
            let _ = waiter.send(());
        }
        lane.retain_waiters(|waiter| !waiter.is_closed());
        let before = lane.len();
        let next = lane.next(self.pods_listed);
        self.waiting = (self.waiting + lane.len()).saturating_sub(before);
        let asides = lane.take_effects();
        if let Some((step, state, known)) = next {
            let (work, key) = (self.work.clone(), key.clone());
            let term = (lane.next_source() == Some(Source::Watch)).then(|| self.term.clone());
            self.underway.push(Box::pin(async move {
                let done = work.run(step, state, known);
                let done = match term {
                    Some(term) => term.run_until_cancelled(done).await.unwrap_or(ActionResult::Abandoned),
                    None => done.await,
                };
                (key, done)
            }));
        } else if lane.is_idle(self.leadership.is_ours()) {
            self.lanes.remove(key);
        }
        if let Some((uid, asides)) = asides {
            asides.into_iter().for_each(|aside| self.beside(key, uid.clone(), aside));
        }
        tracing::trace!(lanes = self.lanes.len(), underway = self.underway.len());
    }

    fn beside(&mut self, key: &Key, uid: String, aside: Effect) {
        let key = key.clone();
        self.besides.push(match aside {
            Effect::FetchLog { pod, name, container } => {
                let tail = self.work.log_tail(&key.0, &name, &container);
                Box::pin(async move { (key, uid, EffectResult::LogTail(pod, tail.await)) })
            }
            Effect::Wait(timer, wait) => Box::pin(async move {
                sleep(wait).await;
                (key, uid, EffectResult::TimerExpired(timer))
            }),
        });
    }
}
