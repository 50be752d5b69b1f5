//! How many requests of a template may be in flight, and may start, while other templates have work.
//!
//! A template that is alone uses every permit. One with little work has, while another one has a queue,
//! enough permits for its requests, but not for a burst. A template with a queue has two limits:
//!
//! - [`limit`]: its requests may take at most twice as long as when few of them are in flight. More of
//!   them would wait for each other in Kubernetes or NATS, and other requests would wait behind them.
//! - [`pace`]: while the requests of a template without a queue take longer than usual, the template
//!   with the queue starts fewer per second, but still more than the other one.
//!
//! The caller passes in the time.

mod delay;
mod limit;
mod pace;

use std::{collections::HashMap, time::Duration};

pub use self::limit::{Kind, MIN};
use self::{delay::Delay, limit::Limit, pace::Pace};
use crate::{contract::names::TemplateName, request::breaker::Plan};

/// How long a template has work after its last request.
pub const BUSY: Duration = Duration::from_secs(60);
/// A template with less work than this part of another one's is limited to [`MAX_LIGHT`] only.
const LIGHT: f64 = 0.5;
/// A template with a queue has at least this many times the work of any other one: among templates
/// with similar work, each keeps its rate.
const MOST: f64 = 1.2;
/// The least rate of a template with a queue, relative to that of the busiest other one. It is above
/// [`MOST`], so that the template stays the one with the queue.
const LEAST: f64 = 1.5;
/// The requests in flight of a template with little work. In a cluster that is slow for all, fewer
/// would let its requests wait in the queue.
pub const MAX_LIGHT: usize = 16;
/// The time in which the counted work halves. It is short, so that a burst soon outweighs older work.
const HALF_LIFE: Duration = Duration::from_secs(1);
/// How long a template has a queue after it was last limited.
const QUEUED: Duration = Duration::from_secs(3);

/// Work of one kind for one template.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Flow {
    /// Its requests.
    Requests(TemplateName),
    /// The searches of its callers. They yield to requests, and requests never yield to them.
    LookUps(TemplateName),
}

/// What the time of a request is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measure {
    /// The times of the flow while few of its requests are in flight.
    is_for_limit: bool,
    /// The usual times of the flow, to slow down others.
    is_for_delay: bool,
}

/// The limits of all flows of this process.
#[derive(Debug)]
pub struct FairConcurrency {
    max: usize,
    flows: HashMap<Flow, Share>,
}

#[derive(Debug)]
struct Share {
    limit: Limit,
    in_flight: usize,
    /// The template has work until then.
    busy_until: Duration,
    work: Work,
    /// The template has more requests than it may start, until then.
    queued_until: Duration,
    pace: Pace,
    delay: Delay,
}

/// The work of a template, compared with that of the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Demand {
    /// No other template has work.
    Alone,
    /// Another one has much more, or has a queue.
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
        Self { max: max.max(1), flows: HashMap::new() }
    }

    /// The largest number of requests that the template may have in flight.
    #[must_use]
    pub fn limit(&self, flow: &Flow, now: Duration) -> usize {
        self.limit_under(self.demand(flow, now), flow)
    }

    fn limit_under(&self, demand: Demand, flow: &Flow) -> usize {
        let limit = match demand {
            Demand::Alone => self.max,
            Demand::Light => MAX_LIGHT,
            Demand::Heavy => self.flows.get(flow).map_or(MIN, |share| share.limit.get()),
        };
        limit.min(self.max)
    }

    /// The step of the pull loop, with this many requests of the template in flight. `plan`: the
    /// step that the circuit breaker allows.
    pub fn within(&mut self, flow: &Flow, plan: Plan, in_flight: usize, now: Duration) -> Plan {
        let Plan::Pull(allowed) = plan else { return plan };
        let demand = self.demand(flow, now);
        let free = self.limit_under(demand, flow).saturating_sub(in_flight);
        let paced = self.flows.get(flow).filter(|share| demand != Demand::Alone && share.has_queue(now));
        let tokens = paced.map_or(Ok(allowed), |share| share.pace.tokens(self.least_rate(flow, now), now));
        let is_limited = demand != Demand::Alone && (free == 0 || tokens.is_err());
        if is_limited && self.has_work_of_others(MOST, flow, now) {
            self.share(flow, now).queued_until = now.saturating_add(QUEUED);
        }
        match tokens {
            _ if free == 0 => Plan::Drain,
            Ok(tokens) => Plan::Pull(allowed.min(free).min(tokens)),
            Err(wait) => Plan::Wait(wait),
        }
    }

    /// The requests of the flow in flight.
    #[must_use]
    pub fn in_flight(&self, flow: &Flow) -> usize {
        self.flows.get(flow).map_or(0, |share| share.in_flight)
    }

    /// Handling of a request starts. Returns what to compare its time with: only the times of
    /// requests under the limit that they change are compared.
    pub fn started(&mut self, flow: &Flow, now: Duration) -> Measure {
        let demand = self.demand(flow, now);
        let limit = self.limit_under(demand, flow);
        let has_queue = self.flows.get(flow).is_some_and(|share| share.has_queue(now));
        let least = if has_queue { self.least_rate(flow, now) } else { 0.0 };
        let share = self.share(flow, now);
        share.in_flight += 1;
        share.busy_until = now.saturating_add(BUSY);
        share.work = Work { count: share.work.count(now) + 1.0, at: now };
        if share.in_flight >= limit {
            share.limit.reached();
        }
        if has_queue {
            share.pace.start(least, now);
        }
        let is_for_limit = demand == Demand::Heavy && share.in_flight <= limit;
        let is_request = matches!(flow, Flow::Requests(_));
        let is_for_delay = is_request && !has_queue && share.in_flight <= MAX_LIGHT;
        Measure { is_for_limit, is_for_delay }
    }

    /// Handling of a request has ended after `took`. Without a measure, it is not compared: it
    /// failed.
    pub fn ended(&mut self, flow: &Flow, measured: Option<(Measure, Kind)>, took: Duration, now: Duration) {
        let max = self.max;
        let share = self.share(flow, now);
        share.in_flight = share.in_flight.saturating_sub(1);
        share.busy_until = now.saturating_add(BUSY);
        let Some((Measure { is_for_limit, is_for_delay }, kind)) = measured else { return };
        if is_for_limit {
            share.limit.add(kind, took, max);
        }
        if is_for_delay && share.delay.add(kind, took, now) {
            self.slow_down_others(flow, now);
        }
    }

    /// The templates with a queue start fewer requests per second.
    fn slow_down_others(&mut self, flow: &Flow, now: Duration) {
        let least = LEAST * self.flows.get(flow).map_or(0.0, |share| share.work.rate(now));
        let others = self.flows.iter_mut().filter(|(other, _)| *other != flow);
        let queued = others.filter(|(_, share)| share.has_queue(now));
        queued.for_each(|(_, share)| share.pace.slow_down(least, now));
    }

    fn demand(&self, flow: &Flow, now: Duration) -> Demand {
        let mut others = self.busy_others(flow, now).peekable();
        if others.peek().is_none() {
            return Demand::Alone;
        }
        if self.flows.get(flow).is_some_and(|share| share.has_queue(now)) {
            return Demand::Heavy;
        }
        if others.any(|share| share.has_queue(now)) || !self.has_work_of_others(LIGHT, flow, now) {
            return Demand::Light;
        }
        Demand::Heavy
    }

    /// Whether the flow has at least `times` the work of each other template.
    fn has_work_of_others(&self, times: f64, flow: &Flow, now: Duration) -> bool {
        let own = self.flows.get(flow).map_or(0.0, |share| share.work.count(now));
        let others = self.busy_others(flow, now).map(|share| share.work.count(now));
        own >= times * others.fold(0.0, f64::max)
    }

    /// The requests per second that the flow may start however slow others are.
    fn least_rate(&self, flow: &Flow, now: Duration) -> f64 {
        LEAST * self.busy_others(flow, now).map(|share| share.work.rate(now)).fold(0.0, f64::max)
    }

    fn busy_others(&self, flow: &Flow, now: Duration) -> impl Iterator<Item = &Share> {
        let others = self.flows.iter().filter(move |(other, share)| {
            matches!(other, Flow::Requests(_)) && *other != flow && share.is_busy(now)
        });
        others.map(|(_, share)| share)
    }

    fn share(&mut self, flow: &Flow, now: Duration) -> &mut Share {
        self.flows.entry(flow.clone()).or_insert_with(|| Share {
            limit: Limit::new(),
            in_flight: 0,
            busy_until: Duration::ZERO,
            work: Work::default(),
            queued_until: Duration::ZERO,
            pace: Pace::new(now),
            delay: Delay::default(),
        })
    }
}

impl Work {
    fn count(self, now: Duration) -> f64 {
        let passed = now.saturating_sub(self.at).as_secs_f64() / HALF_LIFE.as_secs_f64();
        self.count * (-passed).exp2()
    }

    /// The requests per second of steady work.
    fn rate(self, now: Duration) -> f64 {
        self.count(now) * std::f64::consts::LN_2 / HALF_LIFE.as_secs_f64()
    }
}

impl Share {
    fn is_busy(&self, now: Duration) -> bool {
        self.in_flight > 0 || now < self.busy_until
    }

    fn has_queue(&self, now: Duration) -> bool {
        now < self.queued_until
    }
}

#[cfg(test)]
mod tests;
