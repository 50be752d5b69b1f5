//! The circuit breaker of a template: how many requests to pull, given how earlier ones ended.
//!
//! A failure may concern one request or all of them. Distinct requests that fail while none
//! succeeds are *evidence* of an outage. A success clears the evidence: its requests fail for their
//! own reasons, and become *suspects*. At 16, a canary decides: a dry-run create of
//! another Job. The caller passes in the time and random numbers.

mod suspects;

use std::{collections::BTreeMap, time::Duration};

use crate::request::{
    delivery::{delay, redelivery_delay},
    error::{CanaryResult, Stage},
};
use suspects::{Suspect, Suspects};

/// Distinct failed requests without a success until a canary runs.
pub const MAX_EVIDENCE: usize = 16;
/// The requests in flight when a half-open breaker starts, and the fresh requests of a probe.
pub const HALF_OPEN: usize = 8;
/// How many more requests may be in flight after each success of a half-open breaker.
const GROWTH: usize = 4;
/// The largest number of due redeliveries in a probe.
const MAX_DUE: usize = 256;
/// Empty probes after which the breaker closes: every delayed request was due in that time.
const MAX_EMPTY_PROBES: u32 = 4;
/// The longest time between two canaries or probes.
const MAX_INTERVAL: Duration = Duration::from_secs(10);

/// The bounds of a template.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// The largest number of requests in flight.
    pub concurrency: usize,
    /// Suspects beyond this number become dead letters, the oldest first. A tenth of the
    /// consumer's `max_ack_pending`: suspects must never block the other requests.
    pub max_suspects: usize,
}

/// A failed delivery of a request.
#[derive(Debug, Clone, Copy)]
pub struct FailedDelivery {
    /// The request's sequence in `JOBS`.
    pub sequence: u64,
    /// How often it was delivered.
    pub delivered: i64,
    /// What failed.
    pub stage: Stage,
}

/// How to answer a failed delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Deliver the request again after this delay.
    Retry(Duration),
    /// Reject the request. If that fails, deliver it again after this delay.
    Reject(Duration),
}

/// What the pull loop does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    /// Pull at most this many requests.
    Pull(usize),
    /// Run a canary, and report its result.
    Canary,
    /// Pull nothing for this long.
    Wait(Duration),
    /// Wait until a request in flight ends.
    Drain,
}

/// The state, for logs and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// Requests are pulled.
    Closed,
    /// Nothing is pulled.
    Open,
    /// Few requests are pulled.
    HalfOpen,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// At most `limit` requests are in flight.
    Closed { limit: usize },
    /// A canary decides whether the breaker opens.
    Checking { limit: usize },
    /// Nothing is pulled before `until`. Then a canary runs.
    Open { until: Duration },
    /// No canary can decide: `left` requests are still pulled to find out.
    Probing { left: usize, ended: usize, failed: bool },
}

/// A failed request that is evidence of an outage.
#[derive(Debug, Clone, Copy)]
struct Failure {
    stage: Stage,
    first: Duration,
    due: Duration,
}

/// Whether requests of a template can succeed.
#[derive(Debug)]
pub struct CircuitBreaker {
    bounds: Bounds,
    state: State,
    evidence: BTreeMap<u64, Failure>,
    suspects: Suspects,
    last_success: Option<Duration>,
    /// How often a canary or probe was needed since the last success.
    tries: u32,
    empty_probes: u32,
    /// Something failed that a canary does not test.
    needs_probe: bool,
}

impl CircuitBreaker {
    /// A closed breaker.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            state: State::Closed { limit: bounds.concurrency },
            evidence: BTreeMap::new(),
            suspects: Suspects::new(bounds.max_suspects),
            last_success: None,
            tries: 0,
            empty_probes: 0,
            needs_probe: false,
        }
    }

    /// The state, for logs and metrics.
    #[must_use]
    pub fn position(&self) -> Position {
        match self.state {
            State::Closed { limit } | State::Checking { limit } if limit >= self.bounds.concurrency => {
                Position::Closed
            }
            State::Open { .. } => Position::Open,
            _ => Position::HalfOpen,
        }
    }

    /// The number of suspects.
    #[must_use]
    pub fn suspects(&self) -> usize {
        self.suspects.len()
    }

    /// The next step of the pull loop, with this many requests in flight.
    pub fn plan(&mut self, now: Duration, jitter: f64, in_flight: usize) -> Plan {
        if let State::Probing { left: 0, ended, failed } = self.state
            && in_flight == 0
        {
            self.end_probe(ended, failed, now, jitter);
        }
        match self.state {
            State::Closed { limit } => match limit.saturating_sub(in_flight) {
                0 => Plan::Drain,
                free => Plan::Pull(free),
            },
            State::Open { until } if now < until => Plan::Wait(until.saturating_sub(now)),
            State::Checking { .. } | State::Open { .. } => Plan::Canary,
            State::Probing { left: 0, .. } => Plan::Drain,
            State::Probing { left, .. } => Plan::Pull(left),
        }
    }

    /// A request was pulled.
    pub fn pulled(&mut self) {
        if let State::Probing { left, .. } = &mut self.state {
            *left = left.saturating_sub(1);
        }
    }

    /// A pull ended early: no further request is due.
    pub fn queue_is_empty(&mut self) {
        if let State::Probing { left, .. } = &mut self.state {
            *left = 0;
        }
    }

    /// A request became a Job: Jobs can be created, so earlier failures had causes of their own.
    pub fn created(&mut self, sequence: u64, now: Duration) {
        self.forget(sequence);
        self.suspect(now, |_| true);
        self.last_success = Some(now);
        (self.tries, self.empty_probes, self.needs_probe) = (0, 0, false);
        self.state = match self.state {
            State::Closed { limit } => State::Closed { limit: self.grown(limit) },
            State::Checking { limit } => State::Closed { limit },
            State::Open { .. } | State::Probing { .. } => self.half_open(),
        };
    }

    /// A request had its Job already: its events are stored, but no Job was created.
    pub fn existed(&mut self, sequence: u64, now: Duration) {
        self.forget(sequence);
        self.suspect(now, |failure| failure.stage == Stage::Other);
        match self.state {
            State::Probing { left, ended, failed } => {
                self.state = State::Probing { left, ended: ended + 1, failed };
            }
            State::Closed { limit } => self.state = State::Closed { limit: self.grown(limit) },
            State::Checking { .. } | State::Open { .. } => {}
        }
    }

    /// A request was rejected: no evidence of anything.
    pub fn rejected(&mut self, sequence: u64) {
        self.forget(sequence);
        if let State::Probing { ended, .. } = &mut self.state {
            *ended += 1;
        }
    }

    /// A request failed, for a reason that may be its own.
    pub fn failed(&mut self, delivery: FailedDelivery, now: Duration, jitter: f64) -> Verdict {
        if let State::Probing { ended, .. } = &mut self.state {
            *ended += 1;
        }
        let (sequence, succeeded) = (delivery.sequence, self.last_success);
        if let Some(verdict) = self.suspects.failed_again(sequence, succeeded, now, jitter) {
            return verdict;
        }
        let delay = redelivery_delay(delivery.delivered, jitter);
        let stage = delivery.stage;
        let first = self.evidence.get(&sequence).map_or(now, |earlier| earlier.first);
        self.evidence.insert(sequence, Failure { stage, first, due: now.saturating_add(delay) });
        while self.evidence.len() > self.suspects.capacity() {
            self.evidence.pop_first();
        }
        match self.state {
            State::Probing { left, ended, .. } => self.state = State::Probing { left, ended, failed: true },
            State::Closed { limit } if self.evidence.len() >= MAX_EVIDENCE => {
                self.needs_probe = self.evidence.values().any(|failure| failure.stage == Stage::Other);
                match self.needs_probe {
                    true => self.open(now, jitter),
                    false => self.state = State::Checking { limit },
                }
            }
            State::Closed { .. } | State::Checking { .. } | State::Open { .. } => {}
        }
        Verdict::Retry(delay)
    }

    /// A request failed, for a reason that concerns every request: a quota, a permission. Returns
    /// the delay of its next delivery. It is no suspect.
    pub fn all_fail(&mut self, delivery: FailedDelivery, now: Duration, jitter: f64) -> Duration {
        let FailedDelivery { sequence, delivered, stage } = delivery;
        self.evidence.remove(&sequence);
        self.needs_probe |= stage == Stage::Other;
        match self.state {
            // A canary has passed and no request has succeeded since: repeat it with a delay.
            State::Closed { .. } if self.tries > 0 || self.needs_probe => self.open(now, jitter),
            State::Closed { .. } => self.state = State::Checking { limit: HALF_OPEN },
            State::Probing { left, ended, .. } => {
                self.state = State::Probing { left, ended: ended + 1, failed: true };
            }
            State::Checking { .. } | State::Open { .. } => {}
        }
        redelivery_delay(delivered, jitter)
    }

    /// The result of a canary.
    pub fn canary(&mut self, result: &CanaryResult, now: Duration, jitter: f64) {
        match (result, self.state) {
            (_, State::Closed { .. } | State::Probing { .. }) => {}
            (CanaryResult::Failed(_), _) | (CanaryResult::Unknown, State::Checking { .. }) => {
                self.open(now, jitter);
            }
            (CanaryResult::Unknown, State::Open { .. }) => self.start_probe(now),
            (CanaryResult::Passed, state) => {
                self.suspect(now, |failure| failure.stage == Stage::Create);
                self.tries = self.tries.max(1);
                match state {
                    State::Open { .. } if self.needs_probe => self.start_probe(now),
                    State::Open { .. } => self.state = self.half_open(),
                    State::Checking { limit } | State::Closed { limit } => {
                        self.state = State::Closed { limit: self.grown(limit) };
                    }
                    State::Probing { .. } => {}
                }
            }
        }
    }

    fn forget(&mut self, sequence: u64) {
        self.evidence.remove(&sequence);
        self.suspects.remove(sequence);
    }

    /// Turns evidence into suspects.
    fn suspect(&mut self, now: Duration, which: impl Fn(&Failure) -> bool) {
        let found: Vec<_> = self.evidence.extract_if(.., |_, failure| which(failure)).collect();
        for (sequence, Failure { first, due, .. }) in found {
            self.suspects.add(sequence, Suspect { failures: 1, first, due }, now);
        }
    }

    fn open(&mut self, now: Duration, jitter: f64) {
        self.tries = self.tries.saturating_add(1);
        self.wait(now, jitter);
    }

    fn wait(&mut self, now: Duration, jitter: f64) {
        let delay = delay(self.tries, MAX_INTERVAL, jitter);
        self.state = State::Open { until: now.saturating_add(delay) };
    }

    fn start_probe(&mut self, now: Duration) {
        let due = self.evidence.values().filter(|failure| failure.due <= now).count();
        let due = due.saturating_add(self.suspects.due(now)).min(MAX_DUE);
        self.state = State::Probing { left: due.saturating_add(HALF_OPEN), ended: 0, failed: false };
    }

    fn end_probe(&mut self, ended: usize, failed: bool, now: Duration, jitter: f64) {
        if failed {
            self.empty_probes = 0;
            self.open(now, jitter);
        } else if ended == 0 && self.empty_probes < MAX_EMPTY_PROBES {
            self.empty_probes += 1;
            self.wait(now, jitter);
        } else {
            self.evidence.clear();
            (self.tries, self.empty_probes, self.needs_probe) = (0, 0, false);
            self.state = self.half_open();
        }
    }

    fn half_open(&self) -> State {
        State::Closed { limit: HALF_OPEN.min(self.bounds.concurrency) }
    }

    fn grown(&self, limit: usize) -> usize {
        limit.saturating_add(GROWTH).min(self.bounds.concurrency)
    }
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
