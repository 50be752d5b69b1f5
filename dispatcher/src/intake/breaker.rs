//! The circuit breaker of a template, with the time, the canary, logs and readiness.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use dispatcher_core::{
    contract::names::TemplateName,
    request::{
        AckState, Disposition,
        breaker::{Bounds, CircuitBreaker, FailedDelivery, Plan, Position, Verdict},
        error::CanaryResult,
    },
};
use serde_json::Value;
use tokio::time::Instant;

use crate::{kube::JobClient, telemetry::health::Component};

/// The breaker of one template. The handlers report to it, and the pull loop asks it.
pub(crate) struct TemplateBreaker {
    template: TemplateName,
    client: JobClient,
    health: Component,
    started: Instant,
    state: Mutex<State>,
}

struct State {
    breaker: CircuitBreaker,
    /// The last Job that this process created.
    canary: Option<Arc<Value>>,
    /// Why no request of the template can succeed.
    blocked: Option<String>,
    acks: AckState,
    /// The last reported position.
    reported: Position,
    /// The number of suspects at which the next line is logged.
    next_report: usize,
    /// The last failure, for the log.
    last_failure: String,
}

impl State {
    fn is_blocked(&self, now: Duration) -> bool {
        self.blocked.is_some() || self.acks.fails(now)
    }
}

impl TemplateBreaker {
    /// A closed breaker. `health` is the component of the template's intake.
    pub(crate) fn new(
        template: TemplateName,
        client: JobClient,
        health: Component,
        concurrency: usize,
        max_ack_pending: i64,
    ) -> Self {
        let max_suspects =
            usize::try_from(max_ack_pending).ok().filter(|max| *max > 0).unwrap_or(10_000) / 10;
        let breaker = CircuitBreaker::new(Bounds { concurrency, max_suspects });
        let state = State {
            breaker,
            canary: None,
            blocked: None,
            acks: AckState::default(),
            reported: Position::Closed,
            next_report: 1,
            last_failure: String::new(),
        };
        Self { template, client, health, started: Instant::now(), state: Mutex::new(state) }
    }

    /// The next step of the pull loop.
    pub(crate) fn plan(&self, in_flight: usize) -> Plan {
        self.update(|state, now, jitter| {
            let plan = state.breaker.plan(now, jitter, in_flight);
            if matches!(plan, Plan::Pull(_)) && state.breaker.position() == Position::Closed {
                state.blocked = None;
            }
            plan
        })
    }

    /// A message was pulled.
    pub(crate) fn pulled(&self) {
        self.lock().breaker.pulled();
    }

    /// A pull ended. With `short`, the server had fewer messages than asked for.
    pub(crate) fn pull_ended(&self, short: bool) {
        let mut state = self.lock();
        if short {
            state.breaker.queue_is_empty();
        }
        if !state.is_blocked(self.started.elapsed()) {
            self.health.ready();
        }
    }

    /// Whether no request of the template can succeed.
    pub(crate) fn is_blocked(&self) -> bool {
        self.lock().is_blocked(self.started.elapsed())
    }

    /// A request of the template became this Job: the canary from now on.
    pub(crate) fn set_canary(&self, job: Arc<Value>) {
        self.lock().canary = Some(job);
    }

    /// A request ended as `disposition`, which the server confirmed.
    pub(crate) fn ended(&self, sequence: u64, disposition: &Disposition) {
        self.update(|state, now, _| {
            let acks_failed = state.acks.fails(now);
            match disposition {
                Disposition::Created => {
                    state.breaker.created(sequence, now);
                    state.blocked = None;
                }
                Disposition::Exists => state.breaker.existed(sequence, now),
                Disposition::Rejected => state.breaker.rejected(sequence),
                Disposition::Retrying(_) | Disposition::Blocked(_) => return,
            }
            state.acks.confirmed();
            if acks_failed && state.blocked.is_none() || *disposition == Disposition::Created {
                self.health.ready();
            }
        });
    }

    /// A request failed, for a reason that may be its own.
    pub(crate) fn failed(&self, delivery: FailedDelivery, reason: &str) -> Verdict {
        self.log_failure(delivery, reason);
        self.update(|state, now, jitter| {
            reason.clone_into(&mut state.last_failure);
            state.breaker.failed(delivery, now, jitter)
        })
    }

    /// The server did not confirm the ack of a request that is done. Unless the connection was
    /// `lost`, the component is not ready until an ack is confirmed.
    pub(crate) fn unconfirmed(&self, delivery: FailedDelivery, reason: &str, lost: bool) {
        // The next delivery finds the request's Job or dead letter, whatever the verdict is.
        self.failed(delivery, reason);
        if lost {
            return;
        }
        let mut state = self.lock();
        state.acks.unconfirmed(self.started.elapsed());
        self.health.not_ready(reason);
    }

    /// A request failed, for a reason that concerns every request. If it is `blocked`, the
    /// component is not ready until a request or a canary succeeds.
    pub(crate) fn all_fail(&self, delivery: FailedDelivery, reason: &str, blocked: bool) -> Duration {
        self.log_failure(delivery, reason);
        self.update(|state, now, jitter| {
            reason.clone_into(&mut state.last_failure);
            if blocked {
                state.blocked = Some(reason.to_owned());
                self.health.not_ready(reason);
            }
            state.breaker.all_fail(delivery, now, jitter)
        })
    }

    /// Runs a canary, and reports its result to the breaker.
    pub(crate) async fn run_canary(&self) {
        let known = self.lock().canary.clone();
        let canary = match known {
            Some(job) => Ok(Some(job)),
            None => self.client.find_canary(&self.template).await.map(|found| found.map(Arc::new)),
        };
        let (canary, result) = match canary {
            Ok(Some(job)) => {
                let name = job.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
                let result = CanaryResult::of(self.client.create_dry_run(&job).await, name);
                (Some(job), result)
            }
            Ok(None) => (None, CanaryResult::Unknown),
            Err(error) => (None, CanaryResult::Failed(error.to_string())),
        };
        tracing::debug!(template = %self.template, ?result, "canary");
        self.update(|state, now, jitter| {
            match &result {
                CanaryResult::Passed => state.canary = canary,
                // The next success gives another one.
                CanaryResult::Unknown => state.canary = None,
                CanaryResult::Failed(reason) => reason.clone_into(&mut state.last_failure),
            }
            state.breaker.canary(&result, now, jitter);
        });
    }

    fn log_failure(&self, delivery: FailedDelivery, reason: &str) {
        let FailedDelivery { sequence, delivered, .. } = delivery;
        let template = &self.template;
        tracing::debug!(%template, request_seq = sequence, delivered, reason, "request failed");
    }

    /// Changes the state, and logs a change of the breaker: one warning per outage.
    fn update<T>(&self, change: impl FnOnce(&mut State, Duration, f64) -> T) -> T {
        let mut guard = self.lock();
        let state = &mut *guard;
        let result = change(state, self.started.elapsed(), fastrand::f64());
        let position = state.breaker.position();
        let (template, reason) = (&self.template, state.last_failure.as_str());
        match (state.reported, position) {
            (Position::Closed, Position::Open | Position::HalfOpen) => {
                tracing::warn!(%template, reason, "circuit breaker opened: requests of the template wait");
                state.reported = Position::Open;
            }
            (Position::Open | Position::HalfOpen, Position::Closed) => {
                tracing::info!(%template, "circuit breaker closed");
                state.reported = Position::Closed;
            }
            _ => {}
        }
        // One line for 1, 2, 4, … suspects: a client can send many.
        let suspects = state.breaker.suspects();
        if suspects == 0 {
            state.next_report = 1;
        } else if suspects >= state.next_report {
            tracing::info!(%template, suspects, reason, "requests fail while others of the template succeed");
            state.next_report = suspects.saturating_mul(2);
        }
        result
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
