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
fn lease_without_holder_is_taken_at_once() {
    let start = Instant::now();
    for spec in [LeaseSpec::default(), held_by("", 1)] {
        let mut election = Election::new("a".into());
        assert!(election.observe(&spec, start));
        assert_eq!(election.write_in(start), Duration::ZERO);
        assert_eq!(election.leads_until(start), None, "not before the claim is written");
        let claim = election.claim(&wall(2));
        assert_eq!(claim.holder_identity.as_deref(), Some("a"));
        assert_eq!(claim.acquire_time, Some(wall(2)));
        assert_eq!(claim.lease_transitions, Some(spec.lease_transitions.unwrap_or(0) + 1));
        election.written(&claim, start, start + seconds(1));
        assert_eq!(
            election.leads_until(start + seconds(1)),
            Some(start + HOLD),
            "from the time at which the claim was sent"
        );
    }
}

#[test]
fn lease_of_another_holder_is_taken_after_its_duration_without_renewal() {
    let (mut election, start) = (Election::new("b".into()), Instant::now());
    // The wall-clock time in the Lease is years ago and does not count.
    election.observe(&held_by("a", 1), start);
    assert_eq!(election.write_in(start + seconds(9)), seconds(1));
    assert!(!election.observe(&held_by("a", 2), start + seconds(9)), "the same holder");
    assert_eq!(election.write_in(start + seconds(10)), seconds(9), "the holder renewed it");
    assert_eq!(election.next_in(start + seconds(10)), READ_INTERVAL);
    assert_eq!(election.write_in(start + seconds(19)), Duration::ZERO);
}

#[test]
fn lease_held_by_an_earlier_process_is_taken_at_once() {
    let (mut election, start) = (Election::new("a".into()), Instant::now());
    election.observe(&held_by("a", 1), start);
    assert_eq!((election.write_in(start), election.leads_until(start)), (Duration::ZERO, None));
    assert_eq!(election.claim(&wall(9)).lease_transitions, Some(4), "the holder does not change");
}

#[test]
fn holder_that_cannot_renew_stops_leading_before_a_takeover() {
    let (mut election, start) = (Election::new("a".into()), Instant::now());
    election.observe(&LeaseSpec::default(), start);
    election.written(&held_by("a", 1), start, start);
    assert_eq!(election.write_in(start), RENEW_INTERVAL);
    assert_eq!(election.write_in(start + seconds(5)), Duration::ZERO);
    assert!(election.leads_until((start + HOLD).checked_sub(seconds(1)).unwrap()).is_some());
    assert_eq!(election.leads_until(start + HOLD), None);
    assert_eq!(election.write_in(start + HOLD), Duration::ZERO, "it keeps trying to renew");
}

#[test]
fn replica_stops_leading_when_another_takes_the_lease() {
    let (mut election, start) = (Election::new("a".into()), Instant::now());
    election.written(&held_by("a", 1), start, start);
    assert!(election.observe(&held_by("b", 1), start));
    assert_eq!((election.leads_until(start), election.release()), (None, None));
}

#[test]
fn released_lease_is_taken_at_once() {
    let (mut election, start) = (Election::new("a".into()), Instant::now());
    election.written(&held_by("a", 1), start, start);
    let released = election.release().unwrap();
    let mut other = Election::new("b".into());
    other.observe(&released, start);
    assert_eq!(other.write_in(start), Duration::ZERO);
}

#[test]
fn implausible_duration_is_replaced() {
    let start = Instant::now();
    for (found, used) in [(Some(1_000_000_000), MAX_DURATION), (Some(-1), DURATION), (None, DURATION)] {
        let mut election = Election::new("b".into());
        election.observe(&LeaseSpec { lease_duration_seconds: found, ..held_by("a", 1) }, start);
        assert_eq!(election.write_in(start), used);
    }
}

/// A step of one of the replicas.
#[derive(Debug, Clone)]
enum Step {
    /// This number of milliseconds passes.
    Wait(u64),
    /// The replica reads the Lease, and writes it if due. The answer is lost, or arrives after some
    /// milliseconds.
    Sync {
        answer: Option<u64>,
    },
    Release,
    /// The replica is killed and restarts, with the same or another identity.
    Restart {
        renamed: bool,
    },
}

fn step() -> impl Strategy<Value = (usize, Step)> {
    let step = prop_oneof![
        4 => (0..5_000_u64).prop_map(Step::Wait),
        8 => proptest::option::weighted(0.8, 0..2_000_u64).prop_map(|answer| Step::Sync { answer }),
        1 => Just(Step::Release),
        1 => any::<bool>().prop_map(|renamed| Step::Restart { renamed }),
    ];
    (0..3_usize, step)
}

proptest! {
    /// With lost and late answers and killed replicas, at most one replica leads at any time.
    #[test]
    fn two_replicas_never_lead_at_once(steps in proptest::collection::vec(step(), 1..200)) {
        let start = Instant::now();
        let (mut now, mut identities) = (start, 3);
        let mut lease = LeaseSpec::default();
        let mut replicas: Vec<_> = (0..3).map(|n| Election::new(format!("replica-{n}"))).collect();
        for (n, step) in steps {
            let replica = &mut replicas[n];
            match step {
                Step::Wait(milliseconds) => now += Duration::from_millis(milliseconds),
                Step::Sync { answer } => {
                    replica.observe(&lease, now);
                    if replica.write_in(now) == Duration::ZERO {
                        let wall = i64::try_from(now.duration_since(start).as_micros()).unwrap();
                        let sent = now;
                        lease = replica.claim(&MicroTime(Timestamp::from_microsecond(wall).unwrap()));
                        if let Some(delay) = answer {
                            now += Duration::from_millis(delay);
                            replica.written(&lease, sent, now);
                        }
                    }
                }
                Step::Release => {
                    replica.observe(&lease, now);
                    if let Some(released) = replica.release() {
                        lease = released;
                        let identity = replica.identity.clone();
                        *replica = Election::new(identity);
                    }
                }
                Step::Restart { renamed } => {
                    let identity = if renamed { format!("replica-{identities}") } else { replica.identity.clone() };
                    identities += 1;
                    *replica = Election::new(identity);
                }
            }
            let leaders = replicas.iter().filter(|replica| replica.leads_until(now).is_some()).count();
            prop_assert!(leaders <= 1, "{replicas:?}");
        }
    }

    /// A replica takes a Lease that is not renewed, within its duration.
    #[test]
    fn crashed_holder_is_replaced(reads in proptest::collection::vec(0..2_000_u64, 1..50)) {
        let (mut election, start) = (Election::new("b".into()), Instant::now());
        let mut now = start;
        for delay in reads {
            election.observe(&held_by("a", 1), now);
            prop_assert!(election.next_in(now) <= READ_INTERVAL);
            prop_assert_eq!(election.write_in(now) == Duration::ZERO, now >= start + DURATION);
            now += Duration::from_millis(delay);
        }
    }
}
