//! The only writer of status: both halves bring states here, and only what the fence lets through is said.
//!
//! ```text
//! intake ── first_event(state) ─┐                 ┌─ publish, fenced ─▶ JOB_STATUS
//! watch ─── offer(state) ───────┴▶ lane per name ─┼─ verify, settle ──▶ Kubernetes
//!                                                 └─ after an error: read the last message, decide again
//! ```
//!
//! What the watch brings is said while this replica reports ([`leadership`]); what a create brings, always. A Job has one
//! message in flight; different Jobs are pipelined, bounded in number and bytes.

mod lane;
pub mod leadership;
pub mod phase;
pub mod store;
mod work;

pub(crate) use work::{backoff, now};

use std::{collections::HashMap, sync::Arc};

use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use self::{
    lane::{Done, Lane},
    leadership::Leadership,
    store::Known,
    work::Work,
};
use crate::{
    contract::{
        job::JobState,
        names::{JobName, Kind},
    },
    health::Health,
    status::phase::{Source, Step},
};

/// States on their way to the writer.
const CHANNEL: usize = 256;

/// What the writer needs of Kubernetes: the report half gives it.
pub trait Cluster: Send + Sync + 'static {
    /// Whether the Job with this uid is gone. A Job that merely lost its label is not, and gets it back.
    fn is_gone(&self, state: &JobState) -> BoxFuture<'_, Result<bool, String>>;
    /// Whether the Job that is gone was to be cancelled.
    fn is_cancelled(&self, state: &JobState) -> BoxFuture<'_, Result<bool, String>>;
    /// Puts TTL and mark onto a Job whose outcome is stored.
    fn settle(&self, state: &JobState) -> BoxFuture<'_, Result<(), String>>;
}

/// Where both halves bring the states of Jobs.
#[derive(Clone)]
pub struct Writer(mpsc::Sender<Offer>);

/// The writer is gone: the service is stopping.
#[derive(Debug, thiserror::Error)]
#[error("the status writer has stopped")]
pub struct Stopped;

struct Offer {
    state: JobState,
    source: Source,
    known: Option<Known>,
    said: Option<oneshot::Sender<()>>,
}

impl Writer {
    /// Sees to it that something is said of the Job that a create returned; waits until it is stored. The caller
    /// bounds the wait.
    ///
    /// # Errors
    /// [`Stopped`] when the service is stopping.
    pub async fn first_event(&self, state: JobState, known: Option<Known>) -> Result<(), Stopped> {
        let (said, stored) = oneshot::channel();
        let offer = Offer { state, source: Source::Create, known, said: Some(said) };
        self.0.send(offer).await.map_err(|_| Stopped)?;
        stored.await.map_err(|_| Stopped)
    }

    /// Brings a state from the watch or a list, with what is known of its subject.
    ///
    /// # Errors
    /// [`Stopped`] when the service is stopping.
    pub async fn offer(&self, state: JobState, known: Option<Known>) -> Result<(), Stopped> {
        let offer = Offer { state, source: Source::Watch, known, said: None };
        self.0.send(offer).await.map_err(|_| Stopped)
    }
}

type Key = (Kind, JobName);
type Lanes = HashMap<Key, Lane<oneshot::Sender<()>>>;
type Underway = FuturesUnordered<BoxFuture<'static, (Key, Done)>>;

/// Makes the writer and the task that does its work. The task ends when every [`Writer`] is dropped and what they
/// brought is said, or at once when `abort` is cancelled.
pub fn writer(
    store: store::Store,
    cluster: Arc<dyn Cluster>,
    health: &Health,
    leadership: Leadership,
    abort: CancellationToken,
) -> (Writer, impl Future<Output = ()> + use<>) {
    let (tx, rx) = mpsc::channel(CHANNEL);
    let work = Arc::new(Work::new(store, cluster, health));
    (Writer(tx), async move {
        tokio::select! {
            () = run(rx, work, leadership) => {}
            () = abort.cancelled() => {}
        }
    })
}

async fn run(mut offers: mpsc::Receiver<Offer>, work: Arc<Work>, mut leadership: Leadership) {
    let mut lanes = Lanes::new();
    let mut underway = Underway::new();
    let mut term = CancellationToken::new();
    let mut open = true;
    while open || !underway.is_empty() {
        let key = tokio::select! {
            offer = offers.recv(), if open => match offer {
                None => {
                    open = false;
                    continue;
                }
                // On its way when this replica ceased to report.
                Some(offer) if offer.source == Source::Watch && !leadership.is_ours() => continue,
                Some(offer) => match accept(&mut lanes, offer) {
                    Some(key) => key,
                    None => continue,
                },
            },
            Some((key, done)) = underway.next() => {
                if let Some(lane) = lanes.get_mut(&key) {
                    lane.done(done);
                }
                key
            }
            () = leadership.changed() => {
                if !leadership.is_ours() {
                    std::mem::replace(&mut term, CancellationToken::new()).cancel();
                    hand_over(&mut lanes);
                }
                continue;
            }
        };
        advance(&mut lanes, &key, &mut underway, &work, &term, leadership.is_ours());
    }
}

/// Drops what is another replica's to say from now on.
fn hand_over(lanes: &mut Lanes) {
    lanes.retain(|_, lane| {
        lane.hand_over();
        !lane.is_over(false)
    });
}

/// Puts the offer into its lane; `None` where there is nothing to say and no lane.
fn accept(lanes: &mut Lanes, offer: Offer) -> Option<Key> {
    let key = (offer.state.kind.clone(), offer.state.name.clone());
    // Settled Jobs are the many that stay until their TTL: they get no lane.
    if offer.state.settled && !lanes.contains_key(&key) {
        // What was to be said of it is said: whoever waits for that is answered.
        let _ = offer.said.map(|said| said.send(()));
        return None;
    }
    let lane = lanes.entry(key.clone()).or_insert_with(|| Lane::new(Known::default()));
    if let Some(known) = offer.known {
        lane.learn(known);
    }
    if let Some(said) = offer.said {
        lane.wait(offer.state.uid.clone(), said);
    }
    lane.offer(offer.state, offer.source);
    Some(key)
}

/// Starts the lane's next piece of work, serves who waited, and drops the lane when it is over. What the watch brought
/// ends with this replica's `term`.
fn advance(
    lanes: &mut Lanes,
    key: &Key,
    underway: &mut Underway,
    work: &Arc<Work>,
    term: &CancellationToken,
    reports: bool,
) {
    let Some(lane) = lanes.get_mut(key) else { return };
    for waiter in lane.served() {
        // Whoever stopped waiting has its message delivered again.
        let _ = waiter.send(());
    }
    lane.forget(oneshot::Sender::is_closed);
    if let Some((step, state, known)) = lane.next() {
        let (work, key) = (work.clone(), key.clone());
        let term = (lane.source() == Some(Source::Watch)).then(|| term.clone());
        underway.push(Box::pin(async move {
            let done = work.run(step, state, known);
            let done = match term {
                Some(term) => term.run_until_cancelled(done).await.unwrap_or(Done::GivenUp),
                None => done.await,
            };
            (key, done)
        }));
        return;
    }
    if lane.is_over(reports) {
        lanes.remove(key);
    }
    tracing::trace!(lanes = lanes.len(), underway = underway.len());
}

impl Work {
    async fn run(&self, step: Step, state: JobState, known: Known) -> Done {
        match step {
            Step::Say(event, outcome) => self.say(state, known, event, outcome).await,
            Step::CloseEarlier => self.close_earlier(&state).await,
            Step::Verify => self.verify(&state).await,
            Step::Settle => self.settle(&state).await,
            Step::AwaitEarlier => self.await_earlier(&state).await,
        }
    }
}
