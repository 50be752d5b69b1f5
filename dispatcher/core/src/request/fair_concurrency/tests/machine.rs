//! A simulation: processors that all requests share, one template with requests at a steady pace, and
//! one with a queue that never ends.

use std::collections::VecDeque;

use super::*;

/// The milliseconds of a processor that a request takes, and what it causes afterwards, such as its
/// watch events: it delays other requests too.
const COST: f64 = 4.0;
const PROCESSORS: f64 = 2.0;
/// The requests per second that the processors can handle.
const CAPACITY: usize = 250;
const STEP: Duration = Duration::from_millis(1);
/// How long a phase lasts.
const LASTS: Duration = Duration::from_secs(20);
const STEADY: &str = "steady";
const FLOOD: &str = "flood";

struct Machine {
    limits: FairConcurrency,
    now: Duration,
    work: Vec<Work>,
    /// When the steady requests arrived that have not started.
    waiting: VecDeque<Duration>,
}

/// Work in progress.
struct Work {
    /// `None` for what ended requests cause.
    request: Option<(&'static str, Measure)>,
    /// When it arrived, and when it started.
    at: (Duration, Duration),
    left: f64,
}

/// What a phase measured.
struct Measured {
    /// The 99th percentile of the times of steady requests, from arrival to end.
    p99: Duration,
    /// The ended requests of the flood per second.
    flood_rate: usize,
}

impl Machine {
    fn new() -> Self {
        let limits = FairConcurrency::new(MAX);
        Self { limits, now: Duration::ZERO, work: Vec::new(), waiting: VecDeque::new() }
    }

    /// A steady request arrives after each pause.
    fn run(&mut self, pause: Duration, flood: bool) -> Measured {
        let (mut times, mut flooded, mut next) = (vec![], 0, self.now);
        let end = self.now + LASTS;
        while self.now < end {
            if self.now >= next {
                self.waiting.push_back(self.now);
                next += pause;
            }
            self.start(STEADY, self.waiting.len());
            if flood {
                self.start(FLOOD, MAX);
            }
            for (name, took) in self.step() {
                if name == STEADY { times.push(took) } else { flooded += 1 }
            }
        }
        times.sort_unstable();
        let seconds = usize::try_from(LASTS.as_secs()).unwrap();
        Measured { p99: times[times.len() * 99 / 100], flood_rate: flooded / seconds }
    }

    fn start(&mut self, name: &'static str, queued: usize) {
        let in_flight = self.limits.in_flight(&template(name));
        let plan = self.limits.within(&template(name), Plan::Pull(MAX), in_flight, self.now);
        let Plan::Pull(allowed) = plan else { return };
        for _ in 0..allowed.min(queued) {
            let arrived = if name == STEADY { self.waiting.pop_front().unwrap() } else { self.now };
            let measure = self.limits.started(&template(name), self.now);
            self.work.push(Work { request: Some((name, measure)), at: (arrived, self.now), left: COST });
        }
    }

    /// The requests that end in this step, and how long each took.
    fn step(&mut self) -> Vec<(&'static str, Duration)> {
        self.now += STEP;
        let share = (PROCESSORS / self.work.len() as f64).min(1.0);
        self.work.iter_mut().for_each(|work| work.left -= share);
        let (ended, running): (Vec<_>, Vec<_>) = self.work.drain(..).partition(|work| work.left <= 0.0);
        self.work = running;
        let mut times = vec![];
        for Work { request, at: (arrived, started), .. } in ended {
            let Some((name, measure)) = request else { continue };
            let measured = Some((measure, CREATED));
            self.limits.ended(&template(name), measured, self.now.saturating_sub(started), self.now);
            self.work.push(Work { request: None, at: (self.now, self.now), left: COST });
            times.push((name, self.now.saturating_sub(arrived)));
        }
        times
    }
}

#[test]
fn steady_requests_take_at_most_twice_as_long_during_a_flood() {
    let mut machine = Machine::new();
    for _ in 0..5 {
        let quiet = machine.run(Duration::from_millis(80), false);
        let hostile = machine.run(Duration::from_millis(80), true);
        assert!(hostile.p99 <= quiet.p99 * 2, "{:?}, quiet {:?}", hostile.p99, quiet.p99);
        assert!(hostile.flood_rate > CAPACITY / 3, "{} of {CAPACITY} per second", hostile.flood_rate);
    }
}

/// The cluster is slow for another reason.
#[test]
fn slowed_template_has_at_least_the_rate_of_the_others() {
    let mut machine = Machine::new();
    machine.run(Duration::from_millis(80), false);
    // Other work that never ends: even the steady requests are slow.
    for _ in 0..40 {
        machine.work.push(Work { request: None, at: (machine.now, machine.now), left: f64::MAX });
    }
    let slow = machine.run(Duration::from_millis(200), true);
    assert!(slow.flood_rate >= 5, "{} per second", slow.flood_rate);
}

/// Another program uses the processors for a while. The flood does not prolong that.
#[test]
fn steady_requests_recover_during_a_flood_from_busy_processors() {
    let mut machine = Machine::new();
    machine.run(Duration::from_millis(80), false);
    for _ in 0..60 {
        machine.work.push(Work { request: None, at: (machine.now, machine.now), left: 300.0 });
    }
    let busy = machine.run(Duration::from_millis(80), true);
    assert!(busy.p99 < Duration::from_secs(3), "{:?}", busy.p99);
    assert!(machine.waiting.is_empty(), "{}", machine.waiting.len());
}
