mod machine;

use proptest::prelude::*;

use super::*;

const MAX: usize = 64;
const CREATED: Kind = "created";

fn template(name: &str) -> Flow {
    Flow::Requests(TemplateName::try_from(name).unwrap())
}

/// A cluster that handles `capacity` requests at a time; further ones wait for each other.
struct Cluster {
    limits: FairConcurrency,
    capacity: usize,
    idle: Duration,
    now: Duration,
}

impl Cluster {
    fn new(capacity: usize, idle: Duration) -> Self {
        Self { limits: FairConcurrency::new(MAX), capacity, idle, now: Duration::ZERO }
    }

    fn limit(&self, name: &str) -> usize {
        self.limits.limit(&template(name), self.now)
    }

    /// How long a request takes with this many in flight.
    fn time(&self, in_flight: usize) -> Duration {
        self.idle * u32::try_from(in_flight.max(self.capacity)).unwrap()
            / u32::try_from(self.capacity).unwrap()
    }

    /// The template has more requests than it may handle, for this long.
    fn flood(&mut self, name: &str, kind: Kind, lasts: Duration) {
        let end = self.now + lasts;
        while self.now < end {
            let in_flight = self.limit(name);
            let took = self.time(in_flight);
            let measures: Vec<_> =
                (0..in_flight).map(|_| self.limits.started(&template(name), self.now)).collect();
            self.now += took;
            for measure in measures {
                let measured = Some((measure, kind));
                self.limits.ended(&template(name), measured, took, self.now);
            }
        }
    }

    fn handle_one(&mut self, name: &str) {
        let measure = self.limits.started(&template(name), self.now);
        self.now += self.idle;
        let measured = Some((measure, CREATED));
        self.limits.ended(&template(name), measured, self.idle, self.now);
    }
}

const SECOND: Duration = Duration::from_secs(1);
const IDLE: Duration = Duration::from_millis(5);

#[test]
fn template_that_is_alone_uses_every_permit() {
    let mut cluster = Cluster::new(4, IDLE);
    cluster.flood("busy", "created", 10 * SECOND);
    assert_eq!(cluster.limit("busy"), MAX);
}

#[test]
fn requests_of_a_flood_take_at_most_twice_as_long_while_another_template_has_work() {
    for kind in ["created", "rejected"] {
        let mut cluster = Cluster::new(4, IDLE);
        for _ in 0..20 {
            cluster.handle_one("innocent");
            cluster.flood("hostile", kind, SECOND);
        }
        let time = cluster.time(cluster.limit("hostile"));
        assert!(time <= 2 * IDLE, "{kind}: {time:?}");
    }
}

#[test]
fn flood_that_was_alone_shrinks_once_another_template_has_work() {
    let mut cluster = Cluster::new(4, IDLE);
    cluster.flood("hostile", "created", 10 * SECOND);
    cluster.handle_one("innocent");
    cluster.flood("hostile", "created", 10 * SECOND);
    assert!(cluster.time(cluster.limit("hostile")) <= 2 * IDLE, "{}", cluster.limit("hostile"));
}

#[test]
fn template_whose_requests_do_not_wait_for_each_other_gets_every_permit() {
    let mut cluster = Cluster::new(1000, 50 * IDLE);
    for _ in 0..60 {
        cluster.handle_one("innocent");
        cluster.flood("busy", "created", SECOND);
    }
    assert_eq!(cluster.limit("busy"), MAX);
}

#[test]
fn requests_of_another_kind_are_not_slow_ones() {
    let (mut limits, busy) = (FairConcurrency::new(MAX), template("busy"));
    let mut now = Duration::ZERO;
    limits.started(&template("other"), now);
    for _ in 0..1000 {
        for (kind, took) in [("rejected", IDLE / 5), ("created", IDLE)] {
            let measures: Vec<_> = (0..MIN).map(|_| limits.started(&busy, now)).collect();
            now += took;
            for measure in measures {
                limits.ended(&busy, Some((measure, kind)), took, now);
            }
        }
    }
    assert!(limits.limit(&busy, now) > MIN, "{}", limits.limit(&busy, now));
}

#[test]
fn cluster_that_becomes_slower_is_the_usual_one_after_a_while() {
    let mut cluster = Cluster::new(8, IDLE);
    cluster.handle_one("innocent");
    cluster.flood("busy", "created", 5 * SECOND);
    cluster.idle = 20 * IDLE;
    cluster.handle_one("innocent");
    cluster.flood("busy", "created", SECOND);
    for _ in 0..60 {
        cluster.handle_one("innocent");
        cluster.flood("busy", "created", SECOND);
    }
    assert!(cluster.limit("busy") >= 8, "{}", cluster.limit("busy"));
}

/// Otherwise, a slow cluster would make its requests wait in the queue.
#[test]
fn template_with_less_work_than_another_is_not_limited_to_the_minimum() {
    let mut cluster = Cluster::new(4, IDLE);
    for _ in 0..20 {
        cluster.handle_one("innocent");
        cluster.flood("hostile", "rejected", SECOND / 10);
    }
    cluster.idle = 40 * IDLE;
    for _ in 0..20 {
        cluster.handle_one("innocent");
        assert_eq!(cluster.limit("innocent"), MAX_LIGHT);
        cluster.flood("hostile", "rejected", SECOND / 10);
        assert!(cluster.limit("hostile") < MAX / 4);
    }
}

#[test]
fn burst_is_limited_while_another_template_has_steady_work() {
    let mut cluster = Cluster::new(4, IDLE);
    for _ in 0..100 {
        cluster.handle_one("innocent");
        cluster.now += 7 * IDLE;
    }
    assert_eq!(cluster.limit("burst"), MAX_LIGHT);
    for _ in 0..30 {
        cluster.limits.started(&template("burst"), cluster.now);
    }
    assert_eq!(cluster.limit("burst"), MIN);
}

#[test]
fn template_is_alone_again_a_minute_after_the_last_request_of_another() {
    let mut cluster = Cluster::new(4, IDLE);
    cluster.handle_one("busy");
    cluster.handle_one("innocent");
    assert_eq!(cluster.limit("busy"), MIN);
    cluster.now += BUSY;
    assert_eq!(cluster.limit("busy"), MAX);
}

#[test]
fn plan_of_the_breaker_is_cut_to_the_limit() {
    let mut cluster = Cluster::new(4, IDLE);
    cluster.handle_one("busy");
    cluster.handle_one("innocent");
    let mut within = |plan, in_flight| cluster.limits.within(&template("busy"), plan, in_flight, cluster.now);
    for (plan, in_flight, expected) in [
        (Plan::Pull(64), 0, Plan::Pull(MIN)),
        (Plan::Pull(64), MIN - 1, Plan::Pull(1)),
        (Plan::Pull(64), MIN, Plan::Drain),
        (Plan::Pull(1), 0, Plan::Pull(1)),
        (Plan::Canary, 64, Plan::Canary),
        (Plan::Wait(SECOND), 0, Plan::Wait(SECOND)),
    ] {
        assert_eq!(within(plan, in_flight), expected);
    }
}

#[test]
fn look_ups_yield_to_requests_and_never_the_other_way() {
    let (mut limits, mut now) = (FairConcurrency::new(MAX), Duration::ZERO);
    let look_ups = Flow::LookUps(TemplateName::try_from("busy").unwrap());
    for _ in 0..1000 {
        now += IDLE;
        limits.started(&look_ups, now);
    }
    assert_eq!(limits.limit(&template("busy"), now), MAX);
    limits.started(&template("busy"), now);
    assert_eq!(limits.limit(&look_ups, now), MIN);
}

proptest! {
    #[test]
    fn any_sequence_leaves_each_template_at_least_the_minimum(
        max in 1usize..100,
        steps in prop::collection::vec((0usize..3, any::<bool>(), 0u64..100_000, any::<bool>()), 0..300),
    ) {
        let mut limits = FairConcurrency::new(max);
        let mut now = Duration::ZERO;
        let mut measures = HashMap::new();
        for (n, starts, micros, failed) in steps {
            let template = template(&format!("t{n}"));
            now += Duration::from_micros(micros);
            if starts {
                measures.insert(n, limits.started(&template, now));
            } else {
                let measured = measures.remove(&n).filter(|_| !failed).map(|measure| (measure, CREATED));
                limits.ended(&template, measured, Duration::from_micros(micros), now);
            }
            let limit = limits.limit(&template, now);
            prop_assert!((MIN.min(max)..=max).contains(&limit), "{limit}");
        }
    }
}
