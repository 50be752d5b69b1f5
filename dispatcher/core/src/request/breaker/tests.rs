//! The breaker against single events. `simulation` runs whole scenarios.

use proptest::prelude::*;

use super::*;

const BOUNDS: Bounds = Bounds { concurrency: 64, max_suspects: 100 };
const T0: Duration = Duration::ZERO;

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn breaker() -> CircuitBreaker {
    CircuitBreaker::new(BOUNDS)
}

fn create_of(sequence: u64) -> FailedDelivery {
    FailedDelivery { sequence, delivered: 1, stage: Stage::Create }
}

fn fail(breaker: &mut CircuitBreaker, sequences: impl IntoIterator<Item = u64>, now: Duration) {
    for sequence in sequences {
        breaker.failed(create_of(sequence), now, 0.5);
    }
}

fn outage() -> CanaryResult {
    CanaryResult::Failed("no answer".to_owned())
}

/// A breaker that is open since `T0` because of `MAX_EVIDENCE` failures and a failed canary.
fn open() -> CircuitBreaker {
    let mut breaker = breaker();
    fail(&mut breaker, 0..16, T0);
    assert_eq!(breaker.plan(T0, 0.5, 0), Plan::Canary);
    breaker.canary(&outage(), T0, 0.5);
    assert_eq!(breaker.position(), Position::Open);
    breaker
}

#[test]
fn few_failing_requests_never_slow_the_others() {
    let mut breaker = breaker();
    for round in 0..100 {
        fail(&mut breaker, 0..3, at(round));
        assert_eq!(breaker.plan(at(round), 0.5, 0), Plan::Pull(64));
    }
}

#[test]
fn one_request_that_fails_often_is_one_piece_of_evidence() {
    let mut breaker = breaker();
    for round in 0..1000 {
        fail(&mut breaker, [1], at(round));
    }
    assert_eq!(breaker.plan(at(1000), 0.5, 0), Plan::Pull(64));
}

#[test]
fn failed_canary_opens_the_breaker_and_is_repeated_with_growing_delays() {
    let mut breaker = open();
    let mut now = T0;
    let mut waits = Vec::new();
    for _ in 0..7 {
        let Plan::Wait(wait) = breaker.plan(now, 0.5, 0) else { panic!("not open") };
        waits.push(wait.as_millis());
        now += wait;
        assert_eq!(breaker.plan(now, 0.5, 0), Plan::Canary);
        breaker.canary(&outage(), now, 0.5);
    }
    assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 10_000, 10_000]);
}

#[test]
fn passed_canary_after_an_outage_opens_halfway_and_successes_close_the_breaker() {
    let mut breaker = open();
    breaker.plan(at(1), 0.5, 0);
    breaker.canary(&CanaryResult::Passed, at(1), 0.5);
    assert_eq!((breaker.plan(at(1), 0.5, 0), breaker.position()), (Plan::Pull(8), Position::HalfOpen));
    assert_eq!(breaker.plan(at(1), 0.5, 8), Plan::Drain, "8 at a time");
    for sequence in 0..14 {
        breaker.created(sequence, at(2));
    }
    assert_eq!((breaker.plan(at(2), 0.5, 0), breaker.position()), (Plan::Pull(64), Position::Closed));
}

#[test]
fn passed_canary_makes_suspects_and_pulling_continues() {
    let mut breaker = breaker();
    fail(&mut breaker, 0..16, T0);
    breaker.canary(&CanaryResult::Passed, T0, 0.5);
    assert_eq!((breaker.suspects(), breaker.plan(T0, 0.5, 0)), (16, Plan::Pull(64)));
    fail(&mut breaker, 0..16, at(1));
    assert_eq!(breaker.plan(at(1), 0.5, 0), Plan::Pull(64), "failures of suspects are no evidence");
}

#[test]
fn success_makes_suspects_whose_delay_doubles_up_to_ten_minutes() {
    let mut breaker = breaker();
    fail(&mut breaker, [1], T0);
    breaker.created(2, at(1));
    let mut delays = Vec::new();
    for _ in 0..11 {
        let Verdict::Retry(delay) = breaker.failed(create_of(1), at(1), 0.5) else { panic!("rejected") };
        delays.push(delay.as_secs());
    }
    assert_eq!(delays, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600]);
}

#[test]
fn suspect_that_succeeds_is_none_any_more() {
    let mut breaker = breaker();
    fail(&mut breaker, [1, 2, 3, 4], T0);
    breaker.created(9, T0);
    breaker.created(1, T0);
    breaker.existed(2, T0);
    breaker.rejected(3);
    assert_eq!(breaker.suspects(), 1);
}

#[test]
fn quota_opens_the_breaker_at_once_and_makes_no_suspects() {
    let mut breaker = breaker();
    breaker.created(1, T0);
    breaker.all_fail(create_of(2), T0, 0.5);
    assert_eq!(breaker.plan(T0, 0.5, 0), Plan::Canary);
    breaker.canary(&outage(), T0, 0.5);
    assert_eq!(breaker.position(), Position::Open);
    // One slot is free: one request succeeds, the others fail again.
    breaker.canary(&CanaryResult::Passed, at(1), 0.5);
    breaker.created(2, at(1));
    for sequence in 3..10 {
        breaker.all_fail(create_of(sequence), at(1), 0.5);
    }
    breaker.canary(&outage(), at(1), 0.5);
    breaker.created(11, at(2));
    assert_eq!(breaker.suspects(), 0);
}

/// A canary cannot see every cause: after one that passes, the next failure is waited for.
#[test]
fn canary_that_passes_while_requests_fail_alike_does_not_spin() {
    let mut breaker = breaker();
    let mut canaries = 0;
    let mut now = T0;
    for sequence in 0..200 {
        match breaker.plan(now, 0.5, 0) {
            Plan::Canary => {
                canaries += 1;
                breaker.canary(&CanaryResult::Passed, now, 0.5);
            }
            Plan::Wait(wait) => now += wait,
            Plan::Pull(_) => drop(breaker.all_fail(create_of(sequence), now, 0.5)),
            Plan::Drain => panic!("nothing is in flight"),
        }
    }
    assert!(canaries < 80 && now > at(300), "{canaries} canaries in {now:?}");
}

/// A dry-run create says nothing about the stream of the status events.
#[test]
fn canary_cannot_end_an_outage_of_another_stage() {
    let mut breaker = breaker();
    for sequence in 0..16 {
        breaker.failed(FailedDelivery { stage: Stage::Other, ..create_of(sequence) }, T0, 0.5);
    }
    assert_eq!(breaker.position(), Position::Open);
    assert_eq!(breaker.plan(at(1), 0.5, 0), Plan::Canary);
    breaker.canary(&CanaryResult::Passed, at(1), 0.5);
    assert_eq!((breaker.position(), breaker.suspects()), (Position::HalfOpen, 0));
    assert_eq!(breaker.plan(at(1), 0.5, 0), Plan::Pull(16 + HALF_OPEN), "a probe: the due ones and 8 fresh");
}

/// Pulls everything that a probe wants, and lets each request end in the given way.
fn probe(breaker: &mut CircuitBreaker, now: Duration, end: impl Fn(&mut CircuitBreaker)) {
    while let Plan::Pull(count) = breaker.plan(now, 0.5, 0) {
        if breaker.position() != Position::HalfOpen || count == 0 {
            break;
        }
        breaker.pulled();
        end(breaker);
        if !matches!(breaker.state, State::Probing { .. }) {
            break;
        }
    }
}

#[test]
fn without_a_canary_probes_take_the_due_redeliveries_and_fresh_requests() {
    let mut breaker = breaker();
    fail(&mut breaker, 0..20, T0);
    breaker.canary(&CanaryResult::Unknown, T0, 0.5);
    assert_eq!(breaker.position(), Position::Open);
    assert_eq!(breaker.plan(at(1), 0.5, 0), Plan::Canary);
    breaker.canary(&CanaryResult::Unknown, at(1), 0.5);
    assert_eq!(breaker.plan(at(1), 0.5, 0), Plan::Pull(20 + HALF_OPEN));
    probe(&mut breaker, at(1), |breaker| fail(breaker, [100], at(1)));
    assert_eq!(breaker.position(), Position::Open, "a probe in which a request fails opens it again");
    breaker.canary(&CanaryResult::Unknown, at(9), 0.5);
    probe(&mut breaker, at(9), |breaker| breaker.created(200, at(9)));
    assert_eq!((breaker.position(), breaker.suspects()), (Position::HalfOpen, 21));
}

#[test]
fn empty_probes_close_the_breaker() {
    let mut breaker = open();
    let mut now = T0;
    for _ in 0..=MAX_EMPTY_PROBES {
        now += at(10);
        assert_eq!(breaker.plan(now, 0.5, 0), Plan::Canary);
        breaker.canary(&CanaryResult::Unknown, now, 0.5);
        breaker.queue_is_empty();
        breaker.plan(now, 0.5, 0);
    }
    assert_eq!((breaker.position(), breaker.evidence.len()), (Position::HalfOpen, 0));
}

/// Suspects `0..count` that failed first at their own second.
fn suspects(count: u64) -> CircuitBreaker {
    let mut breaker = breaker();
    for sequence in 0..count {
        fail(&mut breaker, [sequence], at(sequence));
        breaker.canary(&CanaryResult::Passed, at(sequence), 0.5);
        breaker.suspect(at(sequence), |_| true);
    }
    breaker
}

fn is_rejected(breaker: &mut CircuitBreaker, sequence: u64, now: Duration) -> bool {
    matches!(breaker.failed(create_of(sequence), now, 0.5), Verdict::Reject(_))
}

#[test]
fn oldest_suspects_beyond_the_bound_become_dead_letters_once_others_succeed() {
    let mut breaker = suspects(103);
    assert!(!is_rejected(&mut breaker, 0, at(200)), "none has succeeded: it may be an outage");
    breaker.created(999, at(200));
    assert!(!is_rejected(&mut breaker, 3, at(201)), "100 newer suspects are within the bound");
    for sequence in [0, 1, 2] {
        assert!(is_rejected(&mut breaker, sequence, at(201)), "{sequence}");
        breaker.rejected(sequence);
    }
    assert!(!is_rejected(&mut breaker, 3, at(202)));
}

#[test]
fn far_beyond_the_bound_every_failing_suspect_becomes_a_dead_letter() {
    let mut breaker = suspects(501);
    assert!(!is_rejected(&mut breaker, 500, at(502)), "it may be an outage");
    assert!(is_rejected(&mut breaker, 0, at(700)), "it fails for more than ten minutes");
    breaker.created(999, at(503));
    assert!(is_rejected(&mut breaker, 500, at(504)));
}

#[derive(Debug, Clone)]
enum Event {
    Created(u64),
    Existed(u64),
    Rejected(u64),
    Failed(u64, bool),
    AllFail(u64, bool),
    Canary(u8),
    Empty,
    Plan(u8),
    Pass(u16),
}

fn event() -> impl Strategy<Value = Event> {
    let sequence = 0_u64..2000;
    prop_oneof![
        1 => sequence.clone().prop_map(Event::Created),
        1 => sequence.clone().prop_map(Event::Existed),
        1 => sequence.clone().prop_map(Event::Rejected),
        10 => (sequence.clone(), any::<bool>()).prop_map(|(s, other)| Event::Failed(s, other)),
        1 => (sequence, any::<bool>()).prop_map(|(s, other)| Event::AllFail(s, other)),
        2 => (0_u8..3).prop_map(Event::Canary),
        1 => Just(Event::Empty),
        5 => (0_u8..64).prop_map(Event::Plan),
        1 => (1_u16..5000).prop_map(Event::Pass),
    ]
}

fn apply(breaker: &mut CircuitBreaker, event: &Event, now: &mut Duration) {
    let delivery = |sequence: u64, other: bool| FailedDelivery {
        stage: if other { Stage::Other } else { Stage::Create },
        ..create_of(sequence)
    };
    match *event {
        Event::Created(sequence) => breaker.created(sequence, *now),
        Event::Existed(sequence) => breaker.existed(sequence, *now),
        Event::Rejected(sequence) => breaker.rejected(sequence),
        Event::Failed(sequence, other) => {
            let (Verdict::Retry(delay) | Verdict::Reject(delay)) =
                breaker.failed(delivery(sequence, other), *now, 0.5);
            assert!(delay >= Duration::from_millis(375) && delay <= at(750));
        }
        Event::AllFail(sequence, other) => {
            assert!(breaker.all_fail(delivery(sequence, other), *now, 0.5) <= at(20));
        }
        Event::Canary(0) => breaker.canary(&CanaryResult::Passed, *now, 0.5),
        Event::Canary(1) => breaker.canary(&CanaryResult::Unknown, *now, 0.5),
        Event::Canary(_) => breaker.canary(&outage(), *now, 0.5),
        Event::Empty => breaker.queue_is_empty(),
        Event::Plan(in_flight) => drop(breaker.plan(*now, 0.5, in_flight.into())),
        Event::Pass(millis) => *now += Duration::from_millis(millis.into()),
    }
}

proptest! {
    /// Memory is bounded, waits are bounded, and from any state good requests flow again.
    #[test]
    fn any_history_is_bounded_and_recovers(events in prop::collection::vec(event(), 0..400)) {
        let mut breaker = CircuitBreaker::new(Bounds { concurrency: 64, max_suspects: 20 });
        let mut now = T0;
        for event in &events {
            apply(&mut breaker, event, &mut now);
            prop_assert!(breaker.evidence.len() <= 200 && breaker.suspects() <= 200);
            if let Plan::Wait(wait) = breaker.plan(now, 0.5, 0) {
                prop_assert!(wait <= at(13));
            }
        }
        let mut created = 0;
        for sequence in 10_000..10_500 {
            match breaker.plan(now, 0.5, 0) {
                Plan::Wait(wait) => now += wait,
                Plan::Canary => breaker.canary(&CanaryResult::Passed, now, 0.5),
                Plan::Pull(_) => {
                    breaker.pulled();
                    breaker.created(sequence, now);
                    created += 1;
                }
                Plan::Drain => prop_assert!(false, "nothing is in flight"),
            }
        }
        prop_assert!(created > 490, "{}", created);
        prop_assert_eq!(breaker.position(), Position::Closed);
    }
}
