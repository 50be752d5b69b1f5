//! Limits the requests in flight of each template while other templates have work.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dispatcher_core::{
    contract::names::TemplateName,
    request::{Disposition, breaker::Plan, fair_concurrency::FairConcurrency},
};
use tokio::time::Instant;

/// The limits of all templates. Clones share them.
#[derive(Clone)]
pub(crate) struct Shares(Arc<Inner>);

struct Inner {
    limits: Mutex<FairConcurrency>,
    started: Instant,
}

/// The share of one template.
#[derive(Clone)]
pub(crate) struct TemplateShare {
    shares: Shares,
    template: TemplateName,
}

/// A request in flight, until it is dropped.
pub(crate) struct InFlight {
    share: TemplateShare,
    began: Instant,
    is_measured: bool,
    kind: Option<&'static str>,
}

impl Shares {
    /// At most `max` requests of each template in flight.
    pub(crate) fn new(max: usize) -> Self {
        let limits = Mutex::new(FairConcurrency::new(max));
        Self(Arc::new(Inner { limits, started: Instant::now() }))
    }

    /// The share of this template.
    pub(crate) fn of(&self, template: TemplateName) -> TemplateShare {
        TemplateShare { shares: self.clone(), template }
    }

    fn lock(&self) -> MutexGuard<'_, FairConcurrency> {
        self.0.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TemplateShare {
    /// The next step of the pull loop. `plan`: the step that the circuit breaker allows.
    pub(super) fn within(&self, plan: Plan, in_flight: usize) -> Plan {
        self.shares.lock().within(&self.template, plan, in_flight, self.shares.0.started.elapsed())
    }

    /// Handling of a request starts.
    pub(super) fn start(&self) -> InFlight {
        let is_measured = self.shares.lock().started(&self.template, self.shares.0.started.elapsed());
        InFlight { share: self.clone(), began: Instant::now(), is_measured, kind: None }
    }
}

impl InFlight {
    /// The request ended as `disposition`. Requests that are delivered again are not measured.
    pub(super) fn end(mut self, disposition: &Disposition) {
        self.kind = (self.is_measured && disposition.is_final()).then(|| disposition.label());
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let TemplateShare { shares, template } = &self.share;
        let (took, now) = (self.began.elapsed(), shares.0.started.elapsed());
        shares.lock().ended(template, self.kind, took, now);
    }
}
