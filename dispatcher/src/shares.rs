//! Limits the requests and look-ups of each template while other templates have work.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use dispatcher_core::request::{
    Disposition,
    breaker::Plan,
    fair_concurrency::{FairConcurrency, Flow, Kind, Measure},
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};

/// The limits of all templates. Clones share them.
#[derive(Clone)]
pub(crate) struct Shares(Arc<Inner>);

struct Inner {
    limits: Mutex<FairConcurrency>,
    started: Instant,
    /// Notified when a request or look-up ends.
    ended: Notify,
}

/// The share of one flow.
#[derive(Clone)]
pub(crate) struct FlowShare {
    shares: Shares,
    flow: Flow,
}

/// The kind of look-ups.
const LOOK_UP: Kind = "look-up";
/// The permits of each look-up.
const ONE: Plan = Plan::Pull(1);

/// A request or look-up in flight, until it is dropped.
pub(crate) struct InFlight {
    share: FlowShare,
    began: Instant,
    measure: Measure,
    measured: Option<(Measure, Kind)>,
}

impl Shares {
    /// At most `max` requests of each template in flight.
    pub(crate) fn new(max: usize) -> Self {
        let limits = Mutex::new(FairConcurrency::new(max));
        Self(Arc::new(Inner { limits, started: Instant::now(), ended: Notify::new() }))
    }

    /// The share of a flow.
    pub(crate) fn of(&self, flow: Flow) -> FlowShare {
        FlowShare { shares: self.clone(), flow }
    }

    fn now(&self) -> Duration {
        self.0.started.elapsed()
    }

    fn lock(&self) -> MutexGuard<'_, FairConcurrency> {
        self.0.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FlowShare {
    /// The next step of the pull loop. `plan`: the step that the circuit breaker allows.
    pub(crate) fn within(&self, plan: Plan, in_flight: usize) -> Plan {
        self.shares.lock().within(&self.flow, plan, in_flight, self.shares.now())
    }

    /// Handling of a request starts.
    pub(crate) fn start(&self) -> InFlight {
        let measure = self.shares.lock().started(&self.flow, self.shares.now());
        InFlight { share: self.clone(), began: Instant::now(), measure, measured: None }
    }

    /// Waits until a look-up may start.
    pub(crate) async fn start_look_up(&self) -> InFlight {
        loop {
            let ended = self.shares.0.ended.notified();
            match self.try_start_look_up() {
                Ok(started) => return started,
                Err(Plan::Wait(delay)) => sleep(delay).await,
                Err(_) => ended.await,
            }
        }
    }

    fn try_start_look_up(&self) -> Result<InFlight, Plan> {
        let mut limits = self.shares.lock();
        let in_flight = limits.in_flight(&self.flow);
        match limits.within(&self.flow, ONE, in_flight, self.shares.now()) {
            Plan::Pull(_) => {}
            other => return Err(other),
        }
        let measure = limits.started(&self.flow, self.shares.now());
        let measured = Some((measure, LOOK_UP));
        Ok(InFlight { share: self.clone(), began: Instant::now(), measure, measured })
    }
}

impl InFlight {
    /// The request ended as `disposition`. Requests that are delivered again are not measured.
    pub(crate) fn end(mut self, disposition: &Disposition) {
        self.measured = disposition.is_final().then(|| (self.measure, disposition.label()));
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let FlowShare { shares, flow } = &self.share;
        shares.lock().ended(flow, self.measured, self.began.elapsed(), shares.now());
        shares.0.ended.notify_waiters();
    }
}
