//! How many requests of a template may be in flight while other templates have work.
//!
//! A template that is alone uses every permit. Beside another one, its requests may take at most
//! twice as long as when few of them are in flight: with more in flight, they wait for each other in
//! Kubernetes or NATS, and the requests of the other templates wait behind them. The caller passes
//! in the time.

use std::{collections::HashMap, time::Duration};

use crate::{contract::names::TemplateName, request::breaker::Plan};

/// How long a template has work after its last request.
pub const BUSY: Duration = Duration::from_secs(60);
/// The requests that are always allowed in flight.
pub const MIN: usize = 2;
/// The requests in flight of a template that has not been measured.
pub const START: usize = 4;
/// The shortest round, in requests.
const MIN_ROUND: usize = 8;
/// If the requests of a round take this many times as long as usual, fewer are allowed.
const SLOW: f64 = 2.0;
/// Below this, more are allowed.
const FAST: f64 = 1.5;
/// The usual time doubles in this time, until a request takes less: the cluster may have changed.
const RISE: Duration = Duration::from_secs(60);

/// What a request cost: only requests of one kind are compared with each other.
pub type Kind = &'static str;

/// The limits of all templates of this process.
#[derive(Debug)]
pub struct FairConcurrency {
    max: usize,
    templates: HashMap<TemplateName, Share>,
}

#[derive(Debug)]
struct Share {
    limit: usize,
    in_flight: usize,
    /// The template has work until then.
    busy_until: Duration,
    usual: HashMap<Kind, Usual>,
    /// The requests of this round, and the sum of their times relative to the usual ones.
    ended: usize,
    ratios: f64,
    /// Whether every allowed request was in flight at some time of this round.
    was_full: bool,
}

/// The time that requests of a kind take while few are in flight.
#[derive(Debug, Clone, Copy)]
struct Usual {
    seconds: f64,
    at: Duration,
}

impl FairConcurrency {
    /// At most `max` requests of each template in flight.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { max: max.max(1), templates: HashMap::new() }
    }

    /// The largest number of requests that the template may have in flight.
    #[must_use]
    pub fn limit(&self, template: &TemplateName, now: Duration) -> usize {
        if self.is_alone(template, now) {
            return self.max;
        }
        self.templates.get(template).map_or(START, |share| share.limit).min(self.max)
    }

    /// The step of the pull loop, with this many requests of the template in flight. `plan`: the
    /// step that the circuit breaker allows.
    #[must_use]
    pub fn within(&self, template: &TemplateName, plan: Plan, in_flight: usize, now: Duration) -> Plan {
        let Plan::Pull(allowed) = plan else { return plan };
        match self.limit(template, now).saturating_sub(in_flight) {
            0 => Plan::Drain,
            free => Plan::Pull(allowed.min(free)),
        }
    }

    /// Handling of a request starts.
    pub fn started(&mut self, template: &TemplateName, now: Duration) {
        let limit = self.limit(template, now);
        let share = self.share(template);
        share.in_flight += 1;
        share.busy_until = now.saturating_add(BUSY);
        share.was_full |= share.in_flight >= limit;
    }

    /// Handling of a request has ended after `took`. Without a kind, its time says nothing about the
    /// others: it failed.
    pub fn ended(&mut self, template: &TemplateName, kind: Option<Kind>, took: Duration, now: Duration) {
        let (max, is_alone) = (self.max, self.is_alone(template, now));
        let share = self.share(template);
        share.in_flight = share.in_flight.saturating_sub(1);
        share.busy_until = now.saturating_add(BUSY);
        // With every permit in use, a long time is usual.
        let Some(kind) = kind.filter(|_| !is_alone) else { return };
        share.add(kind, took, now);
        if share.ended >= share.limit.max(MIN_ROUND) {
            share.end_round(max);
        }
    }

    fn is_alone(&self, template: &TemplateName, now: Duration) -> bool {
        !self.templates.iter().any(|(name, share)| name != template && share.is_busy(now))
    }

    fn share(&mut self, template: &TemplateName) -> &mut Share {
        self.templates.entry(template.clone()).or_insert_with(|| Share {
            limit: START,
            in_flight: 0,
            busy_until: Duration::ZERO,
            usual: HashMap::new(),
            ended: 0,
            ratios: 0.0,
            was_full: false,
        })
    }
}

impl Share {
    fn is_busy(&self, now: Duration) -> bool {
        self.in_flight > 0 || now < self.busy_until
    }

    fn add(&mut self, kind: Kind, took: Duration, now: Duration) {
        let seconds = took.as_secs_f64().max(1e-6);
        let usual = self.usual.entry(kind).or_insert(Usual { seconds, at: now });
        let passed = now.saturating_sub(usual.at).as_secs_f64() / RISE.as_secs_f64();
        usual.seconds *= passed.exp2();
        usual.at = now;
        // A single fast request is chance.
        if seconds < usual.seconds {
            usual.seconds += (seconds - usual.seconds) / 4.0;
        }
        self.ended += 1;
        self.ratios += seconds / usual.seconds;
    }

    fn end_round(&mut self, max: usize) {
        #[allow(clippy::cast_precision_loss, reason = "a round is short")]
        let ratio = self.ratios / self.ended as f64;
        if ratio > SLOW {
            self.limit = (self.limit * 3 / 4).max(MIN);
        } else if ratio < FAST && self.was_full {
            self.limit = (self.limit + 1).min(max.max(MIN));
        }
        (self.ended, self.ratios, self.was_full) = (0, 0.0, false);
    }
}

#[cfg(test)]
mod tests;
