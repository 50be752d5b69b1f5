//! The breaker against a model of `JetStream`, which delivers due redeliveries first.

use std::{cmp::Reverse, collections::BTreeMap, collections::BinaryHeap};

use super::*;

const MAX_ACK_PENDING: usize = 10_000;
const CONCURRENCY: usize = 64;
const END: Duration = Duration::from_secs(1500);

/// Why a request fails.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Request {
    Good,
    /// Its create fails always, for example because a webhook crashes on it.
    Failing,
}

/// What happens to all creates at a time.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cluster {
    Works,
    /// Creates fail, and a canary too.
    Down,
    /// A quota is exceeded.
    Quota,
    /// Creates fail, but a dry run passes.
    StorageFull,
}

struct Scenario {
    requests: Vec<Request>,
    cluster: fn(Duration) -> Cluster,
    /// Whether a canary is known before the first success.
    has_canary: bool,
}

#[derive(Debug)]
struct Report {
    /// How long each good request waited.
    waits: Vec<Duration>,
    failed_creates: usize,
    max_pending: usize,
    dead_letters: usize,
    canaries: usize,
    good_dead_letters: usize,
}

struct Simulation {
    breaker: CircuitBreaker,
    scenario: Scenario,
    now: Duration,
    random: fastrand::Rng,
    next: usize,
    delivered: BTreeMap<u64, i64>,
    redeliveries: BinaryHeap<Reverse<(Duration, u64)>>,
    /// Requests in flight, by the time at which their create ends.
    in_flight: BinaryHeap<Reverse<(Duration, u64)>>,
    report: Report,
}

impl Simulation {
    fn run(scenario: Scenario) -> Report {
        let good = scenario.requests.iter().filter(|request| **request == Request::Good).count();
        let bounds = Bounds { concurrency: CONCURRENCY, max_suspects: MAX_ACK_PENDING / 10 };
        let mut simulation = Self {
            breaker: CircuitBreaker::new(bounds),
            scenario,
            now: Duration::ZERO,
            random: fastrand::Rng::with_seed(1),
            next: 0,
            delivered: BTreeMap::new(),
            redeliveries: BinaryHeap::new(),
            in_flight: BinaryHeap::new(),
            report: Report {
                waits: Vec::new(),
                failed_creates: 0,
                max_pending: 0,
                dead_letters: 0,
                canaries: 0,
                good_dead_letters: 0,
            },
        };
        while simulation.now < END
            && simulation.report.waits.len() + simulation.report.good_dead_letters < good
        {
            simulation.step();
        }
        simulation.report.waits.sort_unstable();
        simulation.report
    }

    fn step(&mut self) {
        let jitter = self.random.f64();
        match self.breaker.plan(self.now, jitter, self.in_flight.len()) {
            Plan::Pull(count) => {
                let pulled = self.pull(count.min(CONCURRENCY - self.in_flight.len()));
                if pulled == 0 {
                    self.breaker.queue_is_empty();
                    self.advance(Duration::MAX);
                } else {
                    self.advance(self.now);
                }
            }
            Plan::Canary => self.canary(),
            Plan::Wait(wait) => self.advance(self.now + wait),
            Plan::Drain => self.advance(Duration::MAX),
        }
        let pending = self.redeliveries.len() + self.in_flight.len();
        self.report.max_pending = self.report.max_pending.max(pending);
    }

    /// Delivers due requests first, then fresh ones within `max_ack_pending`.
    fn pull(&mut self, count: usize) -> usize {
        let mut pulled = 0;
        while pulled < count {
            let sequence = match self.redeliveries.peek() {
                Some(Reverse((due, sequence))) if *due <= self.now => {
                    let sequence = *sequence;
                    self.redeliveries.pop();
                    sequence
                }
                _ if self.next < self.scenario.requests.len()
                    && self.redeliveries.len() + self.in_flight.len() < MAX_ACK_PENDING =>
                {
                    self.next += 1;
                    self.next as u64 - 1
                }
                _ => break,
            };
            *self.delivered.entry(sequence).or_default() += 1;
            let cost = Duration::from_micros(self.random.u64(2500..10_000));
            self.in_flight.push(Reverse((self.now + cost, sequence)));
            self.breaker.pulled();
            pulled += 1;
        }
        pulled
    }

    /// Moves to the next end of a create or the next redelivery, at most to `limit`.
    fn advance(&mut self, limit: Duration) {
        let end = self.in_flight.peek().map(|Reverse((end, _))| *end);
        let due = self.redeliveries.peek().map(|Reverse((due, _))| *due).filter(|due| *due > self.now);
        let next = [end, due].into_iter().flatten().min().unwrap_or(END).min(limit);
        self.now = self.now.max(next);
        while let Some(Reverse((end, sequence))) = self.in_flight.peek().copied()
            && end <= self.now
        {
            self.in_flight.pop();
            self.finish(sequence);
        }
    }

    fn finish(&mut self, sequence: u64) {
        let request = self.scenario.requests[usize::try_from(sequence).unwrap()];
        let delivered = self.delivered[&sequence];
        let delivery = FailedDelivery { sequence, delivered, stage: Stage::Create };
        let jitter = self.random.f64();
        let verdict = match ((self.scenario.cluster)(self.now), request) {
            (Cluster::Works, Request::Good) => {
                self.report.waits.push(self.now);
                return self.breaker.created(sequence, self.now);
            }
            (Cluster::Quota, _) => Verdict::Retry(self.breaker.all_fail(delivery, self.now, jitter)),
            _ => self.breaker.failed(delivery, self.now, jitter),
        };
        self.report.failed_creates += 1;
        match verdict {
            Verdict::Retry(delay) => self.redeliveries.push(Reverse((self.now + delay, sequence))),
            Verdict::Reject(_) => {
                self.breaker.rejected(sequence);
                self.report.dead_letters += 1;
                self.report.good_dead_letters += usize::from(request == Request::Good);
            }
        }
    }

    fn canary(&mut self) {
        self.report.canaries += 1;
        let known = self.scenario.has_canary || !self.report.waits.is_empty();
        let result = match (self.scenario.cluster)(self.now) {
            _ if !known => CanaryResult::Unknown,
            Cluster::Works | Cluster::StorageFull => CanaryResult::Passed,
            Cluster::Down | Cluster::Quota => CanaryResult::Failed("outage".to_owned()),
        };
        self.advance(self.now + Duration::from_millis(3));
        self.breaker.canary(&result, self.now, self.random.f64());
    }
}

fn requests(failing: usize, good: usize) -> Vec<Request> {
    let mut requests = vec![Request::Failing; failing];
    requests.extend(vec![Request::Good; good]);
    requests
}

fn works(_: Duration) -> Cluster {
    Cluster::Works
}

fn during_a_minute(now: Duration, fault: Cluster) -> Cluster {
    if now < Duration::from_secs(60) { fault } else { Cluster::Works }
}

fn p99(report: &Report) -> Duration {
    report.waits[report.waits.len() * 99 / 100]
}

#[test]
fn good_requests_behind_failing_ones_flow_at_once() {
    for (failing, good) in [(1, 40), (3, 40), (15, 40), (16, 40), (100, 1000), (2000, 200), (9000, 200)] {
        let scenario = Scenario { requests: requests(failing, good), cluster: works, has_canary: true };
        let report = Simulation::run(scenario);
        assert_eq!(report.waits.len(), good, "{failing} failing: {report:?}");
        assert!(p99(&report) < Duration::from_secs(5), "{failing} failing: {:?}", p99(&report));
        assert_eq!(report.good_dead_letters, 0);
        assert!(report.max_pending <= MAX_ACK_PENDING);
    }
}

/// More failing requests than the consumer may have pending, and good ones among them.
#[test]
fn flood_of_failing_requests_never_fills_the_consumer() {
    let requests = (0..24_000).map(|n| if n % 20 == 19 { Request::Good } else { Request::Failing });
    let scenario = Scenario { requests: requests.collect(), cluster: works, has_canary: true };
    let report = Simulation::run(scenario);
    assert_eq!((report.waits.len(), report.good_dead_letters), (1200, 0));
    assert!(report.max_pending < MAX_ACK_PENDING, "{} pending", report.max_pending);
    assert!(report.dead_letters > 0);
}

#[test]
fn few_failing_requests_delay_nothing_even_without_a_canary() {
    for failing in [1, 3, 15, 40] {
        let scenario = Scenario { requests: requests(failing, 40), cluster: works, has_canary: false };
        let report = Simulation::run(scenario);
        assert_eq!(report.waits.len(), 40);
        assert!(p99(&report) < Duration::from_secs(15), "{failing} failing: {:?}", p99(&report));
    }
}

#[test]
fn outage_costs_few_creates_and_all_requests_succeed_soon_after_it() {
    for has_canary in [true, false] {
        let cluster = |now| during_a_minute(now, Cluster::Down);
        let scenario = Scenario { requests: requests(0, 1000), cluster, has_canary };
        let report = Simulation::run(scenario);
        assert_eq!((report.waits.len(), report.dead_letters), (1000, 0));
        assert!(report.failed_creates < if has_canary { 200 } else { 2000 }, "{}", report.failed_creates);
        assert!(p99(&report) < Duration::from_secs(90), "{:?}", p99(&report));
    }
}

#[test]
fn quota_costs_few_creates_and_makes_no_dead_letters() {
    for has_canary in [true, false] {
        let cluster = |now| during_a_minute(now, Cluster::Quota);
        let scenario = Scenario { requests: requests(0, 1000), cluster, has_canary };
        let report = Simulation::run(scenario);
        assert_eq!((report.waits.len(), report.dead_letters), (1000, 0));
        assert!(report.failed_creates < 400, "{}", report.failed_creates);
        assert!(p99(&report) < Duration::from_secs(90), "{:?}", p99(&report));
    }
}

#[test]
fn outage_with_failing_requests_in_front_ends_for_the_good_ones() {
    let cluster = |now| during_a_minute(now, Cluster::Down);
    for (failing, good) in [(100, 1000), (9000, 200)] {
        let scenario = Scenario { requests: requests(failing, good), cluster, has_canary: true };
        let report = Simulation::run(scenario);
        assert_eq!((report.waits.len(), report.good_dead_letters), (good, 0), "{failing} failing");
        assert!(p99(&report) < Duration::from_secs(90), "{failing} failing: {:?}", p99(&report));
    }
}

/// A full etcd refuses creates and passes dry runs. No request is to blame.
#[test]
fn outage_that_no_canary_finds_makes_no_dead_letters() {
    let cluster = |now| during_a_minute(now, Cluster::StorageFull);
    let scenario = Scenario { requests: requests(0, 3000), cluster, has_canary: true };
    let report = Simulation::run(scenario);
    assert_eq!((report.waits.len(), report.dead_letters), (3000, 0));
    assert!(p99(&report) < Duration::from_secs(150), "{:?}", p99(&report));
}

/// Each fault comes and goes every ten seconds.
#[test]
fn flapping_cluster_loses_no_request() {
    for fault in [Cluster::Down, Cluster::Quota] {
        let cluster: fn(Duration) -> Cluster = match fault {
            Cluster::Quota => |now| if now.as_secs() / 10 % 2 == 0 { Cluster::Quota } else { Cluster::Works },
            _ => |now| if now.as_secs() / 10 % 2 == 0 { Cluster::Down } else { Cluster::Works },
        };
        let scenario = Scenario { requests: requests(50, 20_000), cluster, has_canary: true };
        let report = Simulation::run(scenario);
        assert_eq!((report.waits.len(), report.good_dead_letters), (20_000, 0));
    }
}
