//! Fault injection for tests.
//!
//! Faults change what callers of the API observe. Only [`Faults::delete_silently`] and
//! [`Faults::forget_history`] change the stored state. Every fault takes effect immediately, also
//! on running watches.

mod admission;
mod calls;
mod watches;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde_json::Value;
use tokio::{sync::watch, time::sleep};

pub use admission::{Creation, Denial};
pub use calls::{Calls, Failure};
pub use watches::{Behaviour, WatchFault};

pub use crate::call::Call;
use crate::{
    error::{ApiError, ApiResult},
    resource::{ALL, Resource},
    store::{Key, Store},
};

/// The faults of one API server. Clones share the same faults.
#[derive(Clone)]
pub struct Faults {
    shared: Arc<Shared>,
}

struct Shared {
    rules: Mutex<Rules>,
    refusing: watch::Sender<bool>,
    /// Incremented when running watches must check their faults again.
    changes: watch::Sender<u64>,
    /// `None` for a proxy.
    store: Option<Arc<Store>>,
}

#[derive(Default)]
struct Rules {
    calls: Vec<calls::Rule>,
    watches: watches::Rules,
    denied: Vec<Calls>,
    admission: admission::Admission,
}

impl Faults {
    /// Faults for [`fault_proxy::serve`](crate::fault_proxy::serve).
    ///
    /// [`Self::delete_silently`] and [`Self::forget_history`] do nothing there, and access reviews
    /// of the upstream server do not know about [`Self::deny`].
    #[must_use]
    pub fn for_proxy() -> Self {
        Self::with_store(None)
    }

    pub(crate) fn new(store: Arc<Store>) -> Self {
        Self::with_store(Some(store))
    }

    fn with_store(store: Option<Arc<Store>>) -> Self {
        let (refusing, changes) = (watch::Sender::new(false), watch::Sender::new(0));
        Self { shared: Arc::new(Shared { rules: Mutex::default(), refusing, changes, store }) }
    }

    /// Makes the next `times` matching calls end in `failure`.
    pub fn fail(&self, calls: Calls, times: u32, failure: Failure) {
        self.rules().calls.push(calls::Rule::fail(calls, times, failure));
    }

    /// Delays the next `times` matching calls by `delay`, before the call is performed.
    pub fn delay(&self, calls: Calls, times: u32, delay: Duration) {
        self.rules().calls.push(calls::Rule::delay(calls, times, delay));
    }

    /// The number of calls that will still fail or be delayed.
    #[must_use]
    pub fn remaining(&self) -> u32 {
        self.rules().calls.iter().fold(0, |sum, rule| sum.saturating_add(rule.remaining()))
    }

    /// Refuses new connections and closes existing ones, or accepts connections again.
    pub fn refuse_connections(&self, refuse: bool) {
        self.shared.refusing.send_replace(refuse);
        self.notify();
    }

    /// Injects `fault` once into every running watch that matches.
    pub fn inject(&self, calls: Calls, fault: WatchFault) {
        self.rules().watches.inject(calls, fault);
        self.notify();
    }

    /// Applies `behaviour` to matching watches, running and new, until [`Self::reset_behaviours`].
    pub fn set_behaviour(&self, calls: Calls, behaviour: Behaviour) {
        self.rules().watches.set_behaviour(calls, behaviour);
        self.notify();
    }

    /// Removes every behaviour. Stalled watches then send the events that they held back.
    pub fn reset_behaviours(&self) {
        self.rules().watches.reset_behaviours();
        self.notify();
    }

    /// Denies matching calls: they fail with 403, and access reviews answer `allowed: false`.
    pub fn deny(&self, calls: Calls) {
        self.rules().denied.push(calls);
    }

    /// Reverts a [`Self::deny`] with equal `calls`.
    pub fn allow(&self, calls: &Calls) {
        self.rules().denied.retain(|denied| denied != calls);
    }

    /// Lets `review` change or refuse each object that is created from now on, also in dry runs. A
    /// proxy does not call it.
    pub fn set_admission(&self, review: impl Fn(Creation<'_>) -> Result<(), Denial> + Send + Sync + 'static) {
        self.rules().admission = admission::Admission::new(review);
    }

    /// Reverts [`Self::set_admission`].
    pub fn reset_admission(&self) {
        self.rules().admission = admission::Admission::default();
    }

    /// Removes an object without an event and regardless of its finalizers.
    ///
    /// Returns whether the object existed.
    pub fn delete_silently(&self, resource: &str, namespace: &str, name: &str) -> bool {
        let Some(resource) = ALL.into_iter().find(|known| known.plural == resource) else { return false };
        let key = Key::new(if resource.namespaced { namespace } else { "" }, name);
        self.shared
            .store
            .as_ref()
            .is_some_and(|store| store.write(|state| state.delete_silently(resource, &key)))
    }

    /// Drops the watch history, as a compaction does. Older watches and list pages receive 410.
    pub fn forget_history(&self) {
        self.shared.store.iter().for_each(|store| store.write(super::store::StoreState::compact));
    }

    /// Removes all faults. Faults that already took effect are not reverted.
    pub fn clear(&self) {
        let mut rules = self.rules();
        rules.calls.clear();
        rules.denied.clear();
        rules.admission = admission::Admission::default();
        rules.watches.reset_behaviours();
        drop(rules);
        self.refuse_connections(false);
    }

    pub(crate) fn refuses_connections(&self) -> bool {
        *self.shared.refusing.borrow()
    }

    /// Completes when connections are refused.
    pub(crate) async fn connections_refused(&self) {
        let mut refusing = self.shared.refusing.subscribe();
        // `self` holds the sender, so the channel stays open.
        let _ = refusing.wait_for(|refusing| *refusing).await;
    }

    /// Waits for the delay of a call and returns its failure.
    ///
    /// # Errors
    /// 403 if the call is denied.
    pub(crate) async fn evaluate(&self, call: &Call) -> ApiResult<Option<Failure>> {
        let (delay, failure) = calls::evaluate(&mut self.rules().calls, call);
        if !delay.is_zero() {
            sleep(delay).await;
        }
        match self.allows(call) {
            true => Ok(failure),
            false => Err(denied(call)),
        }
    }

    /// Admits an object that is about to be created.
    ///
    /// # Errors
    /// The denial.
    pub(crate) fn admit(&self, call: &Call, dry_run: bool, object: &mut Value) -> Result<(), Denial> {
        let admission = self.rules().admission.clone();
        admission.review(call, dry_run, object)
    }

    /// Whether no [`Self::deny`] matches the call.
    pub(crate) fn allows(&self, call: &Call) -> bool {
        !self.rules().denied.iter().any(|calls| calls.matches(call))
    }

    fn notify(&self) {
        self.shared.changes.send_modify(|change| *change += 1);
    }

    fn rules(&self) -> MutexGuard<'_, Rules> {
        self.shared.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn denied(call: &Call) -> ApiError {
    let Resource { plural, group, .. } = call.resource;
    let scope = match call.namespace.as_str() {
        "" => "at the cluster scope".to_owned(),
        namespace => format!("in the namespace \"{namespace}\""),
    };
    let why =
        format!("User \"local\" cannot {} resource \"{plural}\" in API group \"{group}\" {scope}", call.verb);
    let mut error = ApiError::forbidden(call.resource, &call.name, &why);
    if call.name.is_empty() {
        error.message = format!("{} is forbidden: {why}", call.resource.qualified());
    }
    error
}

/// The faults of one running watch.
pub(crate) struct WatchFaultCursor {
    faults: Faults,
    call: Call,
    /// The sequence number of the last fault that this watch received.
    seen: u64,
    changes: watch::Receiver<u64>,
    /// The watch was stalled with [`Behaviour::Merge`], so it merges its next batch.
    merges_next: bool,
}

impl WatchFaultCursor {
    /// A cursor for a watch that starts now. Faults injected earlier do not apply to it.
    pub(crate) fn new(faults: &Faults, call: &Call) -> Self {
        let (seen, changes) = (faults.rules().watches.last(), faults.shared.changes.subscribe());
        Self { faults: faults.clone(), call: call.clone(), seen, changes, merges_next: false }
    }

    /// The next injected fault, if any.
    pub(crate) fn next_fault(&mut self) -> Option<WatchFault> {
        if self.faults.refuses_connections() {
            return Some(WatchFault::Break);
        }
        let next = self.faults.rules().watches.next_fault(self.seen, &self.call);
        next.map(|(number, fault)| {
            self.seen = number;
            fault
        })
    }

    /// Whether `behaviour` applies to this watch.
    pub(crate) fn has(&mut self, behaviour: Behaviour) -> bool {
        let applies = |wanted| self.faults.rules().watches.applies(wanted, &self.call);
        let (requested, merges) = (applies(behaviour), applies(Behaviour::Merge));
        match behaviour {
            Behaviour::Stall if requested => {
                self.merges_next = merges;
                true
            }
            Behaviour::Merge => std::mem::take(&mut self.merges_next) || requested,
            _ => requested,
        }
    }

    /// Completes when the faults have changed.
    pub(crate) async fn changed(&mut self) {
        // `faults` holds the sender, so the channel stays open.
        let _ = self.changes.changed().await;
    }
}
