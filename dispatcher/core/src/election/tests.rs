use k8s_openapi::jiff::Timestamp;
use proptest::prelude::*;

use super::*;

fn wall(second: i64) -> MicroTime {
    MicroTime(Timestamp::from_second(second).unwrap())
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn held_by(identity: &str, renewed: i64) -> LeaseSpec {
    LeaseSpec {
        holder_identity: Some(identity.into()),
        lease_duration_seconds: Some(10),
        renew_time: Some(wall(renewed)),
        lease_transitions: Some(4),
        ..LeaseSpec::default()
    }
}

#[test]
fn a_lease_that_is_not_there_or_nobodys_is_taken_at_once() {
    let start = Instant::now();
    for spec in [LeaseSpec::default(), held_by("", 1)] {
        let mut election = Election::new("a".into());
        assert!(election.saw(&spec, start));
        assert_eq!(election.write_in(start), Duration::ZERO);
        assert_eq!(election.until(start), None, "not before it is granted");
        let claim = election.claim(&wall(2));
        assert_eq!(claim.holder_identity.as_deref(), Some("a"));
        assert_eq!(claim.acquire_time, Some(wall(2)));
        assert_eq!(claim.lease_transitions, Some(spec.lease_transitions.unwrap_or(0) + 1));
        election.granted(&claim, start, start + seconds(1));
        assert_eq!(
            election.until(start + seconds(1)),
            Some(start + HOLD),
            "from the moment it was asked for"
        );
    }
}

#[test]
fn a_lease_of_another_one_is_taken_when_it_was_not_renewed_for_its_duration() {
    let (mut election, start) = (Election::new("b".into()), Instant::now());
    // Its time of the wall is years ago: it does not count.
    election.saw(&held_by("a", 1), start);
    assert_eq!(election.write_in(start + seconds(9)), seconds(1));
    assert!(!election.saw(&held_by("a", 2), start + seconds(9)), "the same holder");
    assert_eq!(election.write_in(start + seconds(10)), seconds(9), "it was renewed");
    assert_eq!(election.next_in(start + seconds(10)), LOOK);
    assert_eq!(election.write_in(start + seconds(19)), Duration::ZERO);
}

#[test]
fn a_lease_of_ones_own_from_an_earlier_life_is_taken_at_once() {
    let (mut election, start) = (Election::new("a".into()), Instant::now());
    election.saw(&held_by("a", 1), start);
    assert_eq!((election.write_in(start), election.until(start)), (Duration::ZERO, None));
    assert_eq!(election.claim(&wall(9)).lease_transitions, Some(4), "it does not change hands");
}

#[test]
fn a_holder_that_cannot_renew_stops_before_anyone_takes_over() {
    let (mut election, start) = (Election::new("a".into()), Instant::now());
    election.saw(&LeaseSpec::default(), start);
    election.granted(&held_by("a", 1), start, start);
    assert_eq!(election.write_in(start), RENEW);
    assert_eq!(election.write_in(start + seconds(5)), Duration::ZERO);
    assert!(election.until(start + HOLD - seconds(1)).is_some());
    assert_eq!(election.until(start + HOLD), None);
    assert_eq!(election.write_in(start + HOLD), Duration::ZERO, "it tries on");
}

#[test]
fn a_lease_that_somebody_else_has_taken_ends_the_lead_at_once() {
    let (mut election, start) = (Election::new("a".into()), Instant::now());
    election.granted(&held_by("a", 1), start, start);
    assert!(election.saw(&held_by("b", 1), start));
    assert_eq!((election.until(start), election.release()), (None, None));
}

#[test]
fn a_released_lease_is_nobodys() {
    let (mut election, start) = (Election::new("a".into()), Instant::now());
    election.granted(&held_by("a", 1), start, start);
    let released = election.release().unwrap();
    let mut other = Election::new("b".into());
    other.saw(&released, start);
    assert_eq!(other.write_in(start), Duration::ZERO);
}

#[test]
fn a_duration_that_nobody_can_mean_is_not_believed() {
    let start = Instant::now();
    for (found, believed) in [(Some(1_000_000_000), LONGEST), (Some(-1), DURATION), (None, DURATION)] {
        let mut election = Election::new("b".into());
        election.saw(&LeaseSpec { lease_duration_seconds: found, ..held_by("a", 1) }, start);
        assert_eq!(election.write_in(start), believed);
    }
}

/// What happens to one of the replicas.
#[derive(Debug, Clone)]
enum Event {
    /// Time passes, in milliseconds.
    Pass(u64),
    /// It looks, and writes where it is due; the answer is lost, or comes after so many milliseconds.
    Round {
        answer: Option<u64>,
    },
    Release,
    /// Killed and started again, under its name or another one.
    Restart {
        renamed: bool,
    },
}

fn event() -> impl Strategy<Value = (usize, Event)> {
    let event = prop_oneof![
        4 => (0..5_000_u64).prop_map(Event::Pass),
        8 => proptest::option::weighted(0.8, 0..2_000_u64).prop_map(|answer| Event::Round { answer }),
        1 => Just(Event::Release),
        1 => any::<bool>().prop_map(|renamed| Event::Restart { renamed }),
    ];
    (0..3_usize, event)
}

proptest! {
    /// Whatever is lost, late, or killed: at no moment do two replicas report, and the server alone decides who.
    #[test]
    fn two_replicas_never_report_at_once(events in proptest::collection::vec(event(), 1..200)) {
        let start = Instant::now();
        let (mut now, mut lives) = (start, 3);
        let mut lease = LeaseSpec::default();
        let mut replicas: Vec<_> = (0..3).map(|n| Election::new(format!("replica-{n}"))).collect();
        for (n, event) in events {
            let replica = &mut replicas[n];
            match event {
                Event::Pass(milliseconds) => now += Duration::from_millis(milliseconds),
                Event::Round { answer } => {
                    replica.saw(&lease, now);
                    if replica.write_in(now) == Duration::ZERO {
                        let wall = i64::try_from(now.duration_since(start).as_micros()).unwrap();
                        let asked = now;
                        lease = replica.claim(&MicroTime(Timestamp::from_microsecond(wall).unwrap()));
                        if let Some(late) = answer {
                            now += Duration::from_millis(late);
                            replica.granted(&lease, asked, now);
                        }
                    }
                }
                Event::Release => {
                    replica.saw(&lease, now);
                    if let Some(released) = replica.release() {
                        lease = released;
                        let identity = replica.identity.clone();
                        *replica = Election::new(identity);
                    }
                }
                Event::Restart { renamed } => {
                    let identity = if renamed { format!("replica-{lives}") } else { replica.identity.clone() };
                    lives += 1;
                    *replica = Election::new(identity);
                }
            }
            let reporting = replicas.iter().filter(|replica| replica.until(now).is_some()).count();
            prop_assert!(reporting <= 1, "{replicas:?}");
        }
    }

    /// Left alone with a Lease that nobody renews, a replica takes it within its duration.
    #[test]
    fn a_crashed_holder_is_followed(looks in proptest::collection::vec(0..2_000_u64, 1..50)) {
        let (mut election, start) = (Election::new("b".into()), Instant::now());
        let mut now = start;
        for look in looks {
            election.saw(&held_by("a", 1), now);
            prop_assert!(election.next_in(now) <= LOOK);
            prop_assert_eq!(election.write_in(now) == Duration::ZERO, now >= start + DURATION);
            now += Duration::from_millis(look);
        }
    }
}
