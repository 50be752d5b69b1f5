use super::*;

const CONCURRENCY: usize = 8;

fn retrying() -> Disposition {
    Disposition::Retrying("quota".into())
}

fn open(failures: i64, empty_probes: u32) -> CircuitBreaker {
    CircuitBreaker::Open { failures, empty_probes }
}

#[test]
fn a_retried_request_opens_the_breaker_and_successes_close_it_gradually() {
    let breaker = CircuitBreaker::Closed.after(&retrying(), false, CONCURRENCY);
    assert_eq!(breaker, open(1, 0));
    let breaker = breaker.after(&Disposition::Blocked("right".into()), true, CONCURRENCY);
    assert_eq!((breaker, breaker.limit(CONCURRENCY)), (open(2, 0), 1));
    let mut breaker = breaker.after(&Disposition::Created, true, CONCURRENCY);
    for limit in 2..=CONCURRENCY {
        assert_eq!(breaker.limit(CONCURRENCY), limit);
        assert!(breaker.after(&retrying(), false, CONCURRENCY).is_open());
        breaker = breaker.after(&Disposition::Exists, false, CONCURRENCY);
    }
    assert_eq!(breaker, CircuitBreaker::Closed);
}

/// Otherwise a short outage that failed many requests would delay the first probe by 30 s.
#[test]
fn requests_that_fail_in_flight_together_count_as_one_failure() {
    let mut breaker = CircuitBreaker::Closed;
    for _ in 0..CONCURRENCY {
        breaker = breaker.after(&retrying(), false, CONCURRENCY);
    }
    assert_eq!(breaker, open(1, 0));
    assert_eq!(breaker.after(&retrying(), true, CONCURRENCY), open(2, 0));
}

#[test]
fn a_rejection_does_not_change_the_breaker() {
    for breaker in [CircuitBreaker::Closed, CircuitBreaker::HalfOpen(3), open(2, 1)] {
        assert_eq!(breaker.after(&Disposition::Rejected, true, CONCURRENCY), breaker);
    }
}

#[test]
fn empty_probes_close_the_breaker_when_the_failed_request_is_gone() {
    let mut breaker = open(5, 0);
    for _ in 0..MAX_EMPTY_PROBES {
        breaker = breaker.after_empty_probe();
        assert!(breaker.is_open());
    }
    assert_eq!(breaker.after_empty_probe(), CircuitBreaker::Closed);
}
