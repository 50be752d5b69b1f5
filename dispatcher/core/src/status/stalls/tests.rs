use super::*;

fn stall(reason: &str) -> Stall {
    Stall { reason: reason.into(), message: "m".into() }
}

fn next_reason(stalls: &StallTracker) -> Option<String> {
    stalls.next().map(|stall| stall.reason)
}

/// Publishes the stall that is due and returns its reason.
fn publish(stalls: &mut StallTracker) -> Option<String> {
    let due = stalls.next();
    if let Some(stall) = &due {
        stalls.mark_published(stall);
    }
    due.map(|stall| stall.reason)
}

#[test]
fn permanent_reason_is_published_once_without_delay() {
    let mut stalls = StallTracker::default();
    stalls.pod_waiting("p".into(), 1, Some(stall("ErrImagePull")));
    assert_eq!(stalls.take_timer(), None);
    assert_eq!(publish(&mut stalls).as_deref(), Some("ErrImagePull"));
    for reason in ["ImagePullBackOff", "ErrImagePull"] {
        stalls.pod_waiting("p".into(), 1, Some(stall(reason)));
        assert_eq!(publish(&mut stalls), None, "the kubelet alternates between the two reasons");
    }
    stalls.pod_waiting("p".into(), 1, Some(stall("CreateContainerConfigError")));
    assert_eq!(publish(&mut stalls).as_deref(), Some("CreateContainerConfigError"), "a different reason");
}

#[test]
fn temporary_reason_is_published_after_a_delay() {
    let mut stalls = StallTracker::default();
    stalls.pod_waiting("p".into(), 1, Some(stall("Unschedulable")));
    assert_eq!(next_reason(&stalls), None);
    let (token, _) = stalls.take_timer().unwrap();
    assert_eq!(stalls.take_timer(), None, "one timer per stall");
    stalls.pod_waiting("p".into(), 1, Some(stall("Unschedulable")));
    assert_eq!(stalls.take_timer(), None, "the same reason does not restart the timer");
    stalls.timer_expired(token);
    assert_eq!(publish(&mut stalls).as_deref(), Some("Unschedulable"));
    // This stall resolves before its timer expires.
    stalls.pod_waiting("q".into(), 2, Some(stall("QuotaExceeded")));
    let (token, _) = stalls.take_timer().unwrap();
    stalls.pod_waiting("q".into(), 2, None);
    stalls.timer_expired(token);
    assert_eq!(publish(&mut stalls), None);
}

#[test]
fn running_pod_prevents_a_stall() {
    let mut stalls = StallTracker::default();
    stalls.pod_running("a".into(), 1);
    stalls.pod_waiting("b".into(), 1, Some(stall("ErrImagePull")));
    stalls.pod_refused(9, stall("PodSecurity"));
    assert_eq!(next_reason(&stalls), None);
    stalls.pod_ended("a", 1, true);
    assert_eq!(publish(&mut stalls).as_deref(), Some("ErrImagePull"));
}

#[test]
fn same_reason_is_published_again_after_a_pod_has_run() {
    let mut stalls = StallTracker::default();
    stalls.pod_waiting("a".into(), 1, Some(stall("ErrImagePull")));
    assert!(publish(&mut stalls).is_some());
    stalls.pod_running("a".into(), 1);
    stalls.pod_ended("a", 1, true);
    stalls.pod_waiting("b".into(), 2, Some(stall("ErrImagePull")));
    assert!(publish(&mut stalls).is_some());
}

#[test]
fn kubernetes_event_older_than_the_newest_pod_is_ignored() {
    let mut stalls = StallTracker::default();
    stalls.pod_waiting("a".into(), 5, None);
    stalls.pod_refused(4, stall("PodSecurity"));
    assert_eq!(next_reason(&stalls), None);
    stalls.pod_refused(6, stall("PodSecurity"));
    assert_eq!(next_reason(&stalls).as_deref(), Some("PodSecurity"));
    stalls.pod_waiting("b".into(), 7, None);
    assert_eq!(next_reason(&stalls), None, "a newer pod exists");
}

#[test]
fn stall_of_a_pod_that_never_ran_stays_after_the_pod_ends() {
    let mut stalls = StallTracker::default();
    stalls.pod_waiting("a".into(), 1, Some(stall("ErrImageNeverPull")));
    stalls.pod_ended("a", 1, false);
    assert_eq!(stalls.active().map(|stall| stall.reason.as_str()), Some("ErrImageNeverPull"));
}

#[test]
fn suspended_job_is_stalled_until_its_condition_clears() {
    let mut stalls = StallTracker::default();
    stalls.suspended(Some(stall("JobSuspended")));
    let (token, _) = stalls.take_timer().unwrap();
    stalls.suspended(Some(stall("JobSuspended")));
    stalls.timer_expired(token);
    assert_eq!(publish(&mut stalls).as_deref(), Some("JobSuspended"));
    stalls.suspended(None);
    assert_eq!(stalls.active(), None);
}
