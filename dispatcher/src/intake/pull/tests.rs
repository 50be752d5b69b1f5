use super::{gate::EMPTY_PROBES, *};

const MANY: usize = 8;

fn put_back() -> Verdict {
    Verdict::Retry("quota".into())
}

#[test]
fn the_gate_closes_when_a_request_is_put_back_and_a_job_opens_it_by_and_by() {
    let gate = Gate::Open.after(&put_back(), false, MANY);
    assert_eq!(gate, Gate::Closed { tries: 1, empty: 0 });
    let gate = gate.after(&Verdict::NotReady("right".into()), true, MANY);
    assert_eq!((gate, gate.most(MANY)), (Gate::Closed { tries: 2, empty: 0 }, 1));
    let mut gate = gate.after(&Verdict::Settled, true, MANY);
    for most in 2..=MANY {
        assert_eq!(gate.most(MANY), most);
        assert!(gate.after(&put_back(), false, MANY).is_closed());
        gate = gate.after(&Verdict::Settled, false, MANY);
    }
    assert_eq!(gate, Gate::Open);
}

/// Else a moment's trouble that met many at once would put off the first probe by half a minute.
#[test]
fn requests_that_were_under_way_together_are_one_try() {
    let mut gate = Gate::Open;
    for _ in 0..MANY {
        gate = gate.after(&put_back(), false, MANY);
    }
    assert_eq!(gate, Gate::Closed { tries: 1, empty: 0 });
    assert_eq!(gate.after(&put_back(), true, MANY), Gate::Closed { tries: 2, empty: 0 });
}

#[test]
fn a_rejection_says_nothing_of_the_gate() {
    for gate in [Gate::Open, Gate::Opening(3), Gate::Closed { tries: 2, empty: 1 }] {
        assert_eq!(gate.after(&Verdict::Rejected, true, MANY), gate);
    }
}

#[test]
fn a_gate_does_not_stay_closed_for_a_request_that_is_gone() {
    let mut gate = Gate::Closed { tries: 5, empty: 0 };
    for _ in 0..EMPTY_PROBES {
        gate = gate.after_empty_probe();
        assert!(gate.is_closed());
    }
    assert_eq!(gate.after_empty_probe(), Gate::Open);
}
