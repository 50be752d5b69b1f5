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

use super::{
    Offer, StateOffer,
    early::Early,
    lane::{Beside, Done, Lane, MANY},
    leadership::Leadership,
    phase::{self, Source},
    signs::{Aside, Sign},
    store::Known,
    work::Work,
};
use crate::contract::names::{JobName, Kind};

pub(super) type Key = (Kind, JobName);
/// How long outcomes wait for the pods to be listed; after that they go without what that would tell.
const PODS_LISTED: Duration = Duration::from_secs(30);

/// A lane, with those who wait for a first event.
type Waited = Lane<oneshot::Sender<()>>;
type Underway = FuturesUnordered<BoxFuture<'static, (Key, Done)>>;
/// With the uid of the Job that it is for.
type Besides = FuturesUnordered<BoxFuture<'static, (Key, String, Beside)>>;

/// See the module.
pub(super) struct Desk {
    work: Arc<Work>,
    lanes: HashMap<Key, Waited>,
    /// States that wait, in all lanes together.
    waiting: usize,
    /// The kinds that there ever were lanes of.
    kinds: BTreeSet<Kind>,
    early: Early,
    leadership: Leadership,
    /// Ends with this replica's time as the one that reports.
    term: CancellationToken,
    /// Whether the pods are listed since this replica began to report, and until when outcomes wait for that.
    pods_listed: bool,
    pods_by: Instant,
    underway: Underway,
    besides: Besides,
}

impl Desk {
    pub(super) fn new(work: Arc<Work>, leadership: Leadership) -> Self {
        Self {
            work,
            lanes: HashMap::new(),
            waiting: 0,
            kinds: BTreeSet::new(),
            early: Early::default(),
            leadership,
            term: CancellationToken::new(),
            pods_listed: false,
            pods_by: Instant::now() + PODS_LISTED,
            underway: Underway::new(),
            besides: Besides::new(),
        }
    }

    /// Works until nobody brings anything more and what was under way has ended. What is done beside is not waited for:
    /// what waits for it is told after the next start.
    pub(super) async fn run(mut self, mut offers: mpsc::Receiver<Offer>) {
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
                    self.counted(&key, |lane| lane.done(done));
                    Some(key)
                }
                Some((key, uid, beside)) = self.besides.next() => {
                    if let Some(lane) = self.lanes.get_mut(&key) {
                        lane.beside(&uid, beside);
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
    fn accept(&mut self, offer: Offer) -> Option<Key> {
        match offer {
            Offer::State(offer) if offer.source == Source::Create => self.state(offer),
            Offer::JobOf { job, request_id, answer } => {
                // Whoever stopped waiting asks again with the next delivery.
                let _ = answer.send(self.lanes.get(&job).and_then(|lane| lane.job_of(&request_id)));
                None
            }
            // On its way when this replica ceased to report.
            _ if !self.leadership.is_ours() => None,
            Offer::State(offer) => self.state(offer),
            Offer::Sign(sign) => self.sign(sign),
            Offer::PodsListing => {
                self.lanes.values_mut().for_each(Lane::pods_listing);
                None
            }
            Offer::PodsListed => {
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
            lane.hand_over();
            !lane.is_over(false)
        });
        self.waiting = self.lanes.values().map(Lane::waiting).sum();
        self.early = Early::default();
    }

    fn state(&mut self, offer: StateOffer) -> Option<Key> {
        let StateOffer { state, source, known, said } = offer;
        let key = (state.kind.clone(), state.name.clone());
        let last = known.as_ref().and_then(|known| known.said.as_ref());
        if !phase::matters(last, &state) && !self.lanes.contains_key(&key) {
            // What was to be said of it is said: whoever waits for that is answered.
            let _ = said.map(|said| said.send(()));
            return None;
        }
        if !self.kinds.contains(&key.0) {
            self.kinds.insert(key.0.clone());
        }
        let early = &mut self.early;
        let lane = self.lanes.entry(key.clone()).or_insert_with(|| {
            let mut lane = Lane::new(Known::default());
            early.take(&key).into_iter().for_each(|(uid, tells)| lane.sign(uid, tells));
            lane
        });
        if let Some(known) = known {
            lane.learn(known);
        }
        if let Some(said) = said {
            lane.wait(state.uid.clone(), said);
        }
        let crowd = self.waiting >= MANY;
        self.counted(&key, |lane| match crowd {
            true => lane.offer_in_a_crowd(state, source),
            false => lane.offer(state, source),
        });
        Some(key)
    }

    /// Does something with a lane, and counts what waits in it.
    fn counted<T>(&mut self, key: &Key, work: impl FnOnce(&mut Waited) -> T) -> Option<T> {
        let lane = self.lanes.get_mut(key)?;
        let before = lane.waiting();
        let done = work(lane);
        self.waiting = (self.waiting + lane.waiting()).saturating_sub(before);
        Some(done)
    }

    fn sign(&mut self, sign: Sign) -> Option<Key> {
        let Sign { kind, name, uid, tells } = sign;
        let Some(kind) = kind else {
            // An Event tells no kind: the lane with that very Job is looked for.
            let mut keys = self.kinds.iter().map(|kind| (kind.clone(), name.clone()));
            let key = keys.find(|key| self.lanes.get(key).is_some_and(|lane| lane.is_of(&uid)))?;
            self.lanes.get_mut(&key)?.sign(uid, tells);
            return Some(key);
        };
        let key = (kind, name);
        match self.lanes.get_mut(&key) {
            Some(lane) => {
                lane.sign(uid, tells);
                Some(key)
            }
            None => {
                self.early.keep(key, uid, tells);
                None
            }
        }
    }

    /// Starts the lane's next piece of work, serves who waited, and drops the lane when it is over. What the watches
    /// brought ends with this replica's term.
    fn advance(&mut self, key: &Key) {
        let Some(lane) = self.lanes.get_mut(key) else { return };
        for waiter in lane.served() {
            // Whoever stopped waiting has its message delivered again.
            let _ = waiter.send(());
        }
        lane.forget(oneshot::Sender::is_closed);
        let before = lane.waiting();
        let next = lane.next(self.pods_listed);
        self.waiting = (self.waiting + lane.waiting()).saturating_sub(before);
        let asides = lane.asides();
        if let Some((step, state, known)) = next {
            let (work, key) = (self.work.clone(), key.clone());
            let term = (lane.source() == Some(Source::Watch)).then(|| self.term.clone());
            self.underway.push(Box::pin(async move {
                let done = work.run(step, state, known);
                let done = match term {
                    Some(term) => term.run_until_cancelled(done).await.unwrap_or(Done::GivenUp),
                    None => done.await,
                };
                (key, done)
            }));
        } else if lane.is_over(self.leadership.is_ours()) {
            self.lanes.remove(key);
        }
        if let Some((uid, asides)) = asides {
            asides.into_iter().for_each(|aside| self.beside(key, uid.clone(), aside));
        }
        tracing::trace!(lanes = self.lanes.len(), underway = self.underway.len());
    }

    fn beside(&mut self, key: &Key, uid: String, aside: Aside) {
        let key = key.clone();
        self.besides.push(match aside {
            Aside::Log { pod, name, container } => {
                let tail = self.work.log_tail(&key.0, &name, &container);
                Box::pin(async move { (key, uid, Beside::Log(pod, tail.await)) })
            }
            Aside::Wait(timer, wait) => Box::pin(async move {
                sleep(wait).await;
                (key, uid, Beside::Waited(timer))
            }),
        });
    }
}
