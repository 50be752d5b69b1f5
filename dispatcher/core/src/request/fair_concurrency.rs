//! How many requests of a template may be in flight while other templates have work.
//!
//! A template that is alone uses every permit. One with much less work than another has enough
//! permits for its requests, but not for a burst. Otherwise, its requests may take at most twice as
//! long as when few of them are in flight: with more, they wait for each other in Kubernetes or
//! NATS, and the requests of the other templates wait behind them. The caller passes in the time.

use std::{collections::HashMap, time::Duration};

use crate::{contract::names::TemplateName, request::breaker::Plan};

/// How long a template has work after its last request.
pub const BUSY: Duration = Duration::from_secs(60);
/// The requests that are always allowed in flight, and the first limit of a template.
pub const MIN: usize = 4;
/// The shortest round, in requests.
const MIN_ROUND: usize = 8;
/// If the requests of a round take this many times as long as usual, fewer are allowed.
const SLOW: f64 = 2.0;
/// Below this, more are allowed.
const FAST: f64 = 1.5;
/// How fast the measured times change the usual one.
const WEIGHT: f64 = 0.25;
/// A template with less work than this part of another one's is limited to [`MAX_LIGHT`] only.
const LIGHT: f64 = 0.5;
/// The requests in flight of a template with little work. In a cluster that is slow for all, fewer
/// would let its requests wait in the queue.
pub const MAX_LIGHT: usize = 16;
/// The time in which the counted work halves. It is short, so that a burst soon outweighs older work.
const HALF_LIFE: Duration = Duration::from_secs(1);

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
    work: Work,
    /// The seconds that requests of a kind take while few are in flight.
    usual: HashMap<Kind, f64>,
    /// The requests of this round, and the sum of their times relative to the usual ones.
    ended: u32,
    ratios: f64,
    /// Whether every allowed request was in flight at some time of this round.
    was_full: bool,
}

/// The work of a template, compared with that of the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Demand {
    /// No other template has work.
    Alone,
    /// Another one has much more.
    Light,
    /// No other one has much more.
    Heavy,
}

/// The number of requests that started lately: older ones count less.
#[derive(Debug, Clone, Copy, Default)]
struct Work {
    count: f64,
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
        self.limit_under(self.demand(template, now), template)
    }

    fn limit_under(&self, demand: Demand, template: &TemplateName) -> usize {
        let limit = match demand {
            Demand::Alone => self.max,
            Demand::Light => MAX_LIGHT,
            Demand::Heavy => self.templates.get(template).map_or(MIN, |share| share.limit),
        };
        limit.min(self.max)
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

    /// Handling of a request starts. Returns whether to measure it: only the times of requests
    /// under the limit that they change are compared.
    pub fn started(&mut self, template: &TemplateName, now: Duration) -> bool {
        let demand = self.demand(template, now);
        let limit = self.limit_under(demand, template);
        let share = self.share(template);
        share.in_flight += 1;
        share.busy_until = now.saturating_add(BUSY);
        share.work = Work { count: share.work.count(now) + 1.0, at: now };
        share.was_full |= share.in_flight >= limit;
        demand == Demand::Heavy && share.in_flight <= limit
    }

    /// Handling of a request has ended after `took`. Without a kind, it is not measured: it failed,
    /// or [`Self::started`] returned `false`.
    pub fn ended(&mut self, template: &TemplateName, kind: Option<Kind>, took: Duration, now: Duration) {
        let max = self.max;
        let share = self.share(template);
        share.in_flight = share.in_flight.saturating_sub(1);
        share.busy_until = now.saturating_add(BUSY);
        let Some(kind) = kind else { return };
        share.add(kind, took);
        if usize::try_from(share.ended).is_ok_and(|ended| ended >= share.limit.max(MIN_ROUND)) {
            share.end_round(max);
        }
    }

    fn demand(&self, template: &TemplateName, now: Duration) -> Demand {
        let others = self.templates.iter().filter(|(name, share)| *name != template && share.is_busy(now));
        let own = self.templates.get(template).map_or(0.0, |share| share.work.count(now));
        match others.map(|(_, share)| share.work.count(now)).reduce(f64::max) {
            None => Demand::Alone,
            Some(most) if own < LIGHT * most => Demand::Light,
            Some(_) => Demand::Heavy,
        }
    }

    fn share(&mut self, template: &TemplateName) -> &mut Share {
        self.templates.entry(template.clone()).or_insert_with(|| Share {
            limit: MIN,
            in_flight: 0,
            busy_until: Duration::ZERO,
            work: Work::default(),
            usual: HashMap::new(),
            ended: 0,
            ratios: 0.0,
            was_full: false,
        })
    }
}

impl Work {
    fn count(self, now: Duration) -> f64 {
        let passed = now.saturating_sub(self.at).as_secs_f64() / HALF_LIFE.as_secs_f64();
        self.count * (-passed).exp2()
    }
}

impl Share {
    fn is_busy(&self, now: Duration) -> bool {
        self.in_flight > 0 || now < self.busy_until
    }

    fn add(&mut self, kind: Kind, took: Duration) {
        let seconds = took.as_secs_f64().max(1e-6);
        let usual = self.usual.entry(kind).or_insert(seconds);
        // With few in flight, a slow request is slow for another reason.
        if seconds < *usual || self.limit <= MIN {
            *usual += (seconds - *usual) * WEIGHT;
        }
        self.ended += 1;
        self.ratios += seconds / *usual;
    }

    fn end_round(&mut self, max: usize) {
        let ratio = self.ratios / f64::from(self.ended);
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
