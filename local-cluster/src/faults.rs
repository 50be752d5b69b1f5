//! What can be made to go wrong, for tests.
//!
//! Faults come from outside the API: they change what a caller meets, and, but for [`Faults::vanish`] and
//! [`Faults::forget_history`], never what the cluster holds. All take effect at once, on running watches too.

mod calls;
mod front;
mod watches;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, time::sleep};

pub use calls::{Calls, Failure};
pub use front::serve_before;
pub use watches::{Behaviour, Strike};

pub(crate) use watches::WatchFaults;

pub use crate::http::Call;
use crate::{
    error::{ApiError, ApiResult},
    resource::{ALL, Resource},
    store::{Key, Store},
};

/// See the module. Clones are handles of the same faults.
#[derive(Clone)]
pub struct Faults {
    shared: Arc<Shared>,
}

struct Shared {
    rules: Mutex<Rules>,
    refusing: watch::Sender<bool>,
    /// Changes when something changed that running watches have to look at.
    turns: watch::Sender<u64>,
    /// `None` where they stand before another API server.
    store: Option<Arc<Store>>,
}

#[derive(Default)]
struct Rules {
    calls: Vec<calls::Rule>,
    watches: watches::Rules,
    denied: Vec<Calls>,
}

/// What a call meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Proceed,
    Fail(u16),
    FailAfter(u16),
    Break,
    BreakAfter,
    LateAfter(Duration),
    Event(u16),
}

impl Faults {
    /// Those of an API server that is elsewhere, for [`serve_before`]. [`Self::vanish`] and [`Self::forget_history`] do
    /// nothing there, and [`Self::deny`] is not seen by its access reviews.
    #[must_use]
    pub fn of_another() -> Self {
        Self::of(None)
    }

    pub(crate) fn new(store: Arc<Store>) -> Self {
        Self::of(Some(store))
    }

    fn of(store: Option<Arc<Store>>) -> Self {
        let (refusing, turns) = (watch::Sender::new(false), watch::Sender::new(0));
        Self { shared: Arc::new(Shared { rules: Mutex::default(), refusing, turns, store }) }
    }

    /// The next `times` calls that match end in `failure`.
    pub fn fail(&self, calls: Calls, times: u32, failure: Failure) {
        self.rules().calls.push(calls::Rule::fail(calls, times, failure));
    }

    /// The next `times` calls that match take `delay` longer, before anything is done.
    pub fn delay(&self, calls: Calls, times: u32, delay: Duration) {
        self.rules().calls.push(calls::Rule::delay(calls, times, delay));
    }

    /// How many calls are still to meet a failure or a delay: 0 once each has struck.
    #[must_use]
    pub fn left(&self) -> u32 {
        self.rules().calls.iter().fold(0, |sum, rule| sum.saturating_add(rule.left()))
    }

    /// Refuses new connections and ends the ones that are there, or accepts again.
    pub fn refuse_connections(&self, refuse: bool) {
        self.shared.refusing.send_replace(refuse);
        self.turn();
    }

    /// Does something to the running watches that match, once.
    pub fn strike(&self, calls: Calls, strike: Strike) {
        self.rules().watches.strike(calls, strike);
        self.turn();
    }

    /// Makes watches that match behave like that, running ones and new ones, until [`Self::behave_well`].
    pub fn behave(&self, calls: Calls, behaviour: Behaviour) {
        self.rules().watches.behave(calls, behaviour);
        self.turn();
    }

    /// Ends every [`Self::behave`]: what was held back is sent.
    pub fn behave_well(&self) {
        self.rules().watches.behave_well();
        self.turn();
    }

    /// Takes the right to make calls that match: they are answered with 403, and access reviews say no.
    pub fn deny(&self, calls: Calls) {
        self.rules().denied.push(calls);
    }

    /// Ends a [`Self::deny`] of these very calls.
    pub fn allow(&self, calls: &Calls) {
        self.rules().denied.retain(|denied| denied != calls);
    }

    /// Removes an object without an event, and whatever its finalizers say. Says whether it was there.
    pub fn vanish(&self, resource: &str, namespace: &str, name: &str) -> bool {
        let Some(resource) = ALL.into_iter().find(|known| known.plural == resource) else { return false };
        let key = Key::new(if resource.namespaced { namespace } else { "" }, name);
        self.shared.store.as_ref().is_some_and(|store| store.write(|inner| inner.vanish(resource, &key)))
    }

    /// Forgets the history, as a compaction does: watches and pages from before get a 410.
    pub fn forget_history(&self) {
        self.shared.store.iter().for_each(|store| store.write(|inner| inner.forget()));
    }

    /// Ends all faults. What has struck stays as it is.
    pub fn clear(&self) {
        let mut rules = self.rules();
        rules.calls.clear();
        rules.denied.clear();
        rules.watches.behave_well();
        drop(rules);
        self.refuse_connections(false);
    }

    pub(crate) fn refuses(&self) -> bool {
        *self.shared.refusing.borrow()
    }

    /// Returns once connections are refused.
    pub(crate) async fn refusing(&self) {
        let mut refusing = self.shared.refusing.subscribe();
        // It cannot be closed: `self` holds the sender.
        let _ = refusing.wait_for(|refusing| *refusing).await;
    }

    /// What a call meets; delays are waited for here.
    pub(crate) async fn meet(&self, call: &Call) -> ApiResult<Verdict> {
        let (delay, verdict) = calls::meet(&mut self.rules().calls, call);
        if !delay.is_zero() {
            sleep(delay).await;
        }
        match self.is_denied(call) {
            true => Err(denied(call)),
            false => Ok(verdict),
        }
    }

    fn is_denied(&self, call: &Call) -> bool {
        self.rules().denied.iter().any(|calls| calls.matches(call))
    }

    /// The answer of an access review.
    pub(crate) fn allows(&self, call: &Call) -> bool {
        !self.is_denied(call)
    }

    fn turn(&self) {
        self.shared.turns.send_modify(|turn| *turn += 1);
    }

    fn rules(&self) -> MutexGuard<'_, Rules> {
        self.shared.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn denied(call: &Call) -> ApiError {
    let Resource { plural, group, .. } = call.resource;
    let place = match call.namespace.as_str() {
        "" => "at the cluster scope".to_owned(),
        namespace => format!("in the namespace \"{namespace}\""),
    };
    let why =
        format!("User \"local\" cannot {} resource \"{plural}\" in API group \"{group}\" {place}", call.verb);
    let mut error = ApiError::forbidden(call.resource, &call.name, &why);
    if call.name.is_empty() {
        error.message = format!("{} is forbidden: {why}", call.resource.qualified());
    }
    error
}
