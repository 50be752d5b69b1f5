use super::*;

fn stall(reason: &str) -> Stall {
    Stall { reason: reason.into(), message: "m".into() }
}

fn reason(stalls: &Stalls) -> Option<String> {
    stalls.next().map(|stall| stall.reason)
}

/// PodState what is due.
fn tell(stalls: &mut Stalls) -> Option<String> {
    let due = stalls.next();
    due.iter().for_each(|stall| stalls.told(stall));
    due.map(|stall| stall.reason)
}

#[test]
fn what_does_not_settle_itself_is_told_at_once_and_once() {
    let mut stalls = Stalls::default();
    stalls.waiting("p".into(), 1, Some(stall("ErrImagePull")));
    assert_eq!(stalls.wait(), None);
    assert_eq!(tell(&mut stalls).as_deref(), Some("ErrImagePull"));
    for again in ["ImagePullBackOff", "ErrImagePull"] {
        stalls.waiting("p".into(), 1, Some(stall(again)));
        assert_eq!(tell(&mut stalls), None, "the kubelet says both in turn");
    }
    stalls.waiting("p".into(), 1, Some(stall("CreateContainerConfigError")));
    assert_eq!(tell(&mut stalls).as_deref(), Some("CreateContainerConfigError"), "another reason");
}

#[test]
fn what_may_settle_itself_has_to_last() {
    let mut stalls = Stalls::default();
    stalls.waiting("p".into(), 1, Some(stall("Unschedulable")));
    assert_eq!(reason(&stalls), None);
    let (token, _) = stalls.wait().unwrap();
    assert_eq!(stalls.wait(), None, "one wait");
    stalls.waiting("p".into(), 1, Some(stall("Unschedulable")));
    assert_eq!(stalls.wait(), None, "the same again does not begin anew");
    stalls.lasted(token);
    assert_eq!(tell(&mut stalls).as_deref(), Some("Unschedulable"));
    // Scheduled in time: the wait that ends later says nothing.
    stalls.waiting("q".into(), 2, Some(stall("QuotaExceeded")));
    let (token, _) = stalls.wait().unwrap();
    stalls.waiting("q".into(), 2, None);
    stalls.lasted(token);
    assert_eq!(tell(&mut stalls), None);
}

#[test]
fn while_a_pod_runs_there_is_no_stall() {
    let mut stalls = Stalls::default();
    stalls.running("a".into(), 1);
    stalls.waiting("b".into(), 1, Some(stall("ErrImagePull")));
    stalls.refused(9, stall("PodSecurity"));
    assert_eq!(reason(&stalls), None);
    stalls.ended("a", 1, true);
    assert_eq!(tell(&mut stalls).as_deref(), Some("ErrImagePull"));
}

#[test]
fn after_a_pod_has_run_the_same_reason_is_news() {
    let mut stalls = Stalls::default();
    stalls.waiting("a".into(), 1, Some(stall("ErrImagePull")));
    assert!(tell(&mut stalls).is_some());
    stalls.running("a".into(), 1);
    stalls.ended("a", 1, true);
    stalls.waiting("b".into(), 2, Some(stall("ErrImagePull")));
    assert!(tell(&mut stalls).is_some());
}

#[test]
fn an_event_from_before_the_newest_pod_says_nothing() {
    let mut stalls = Stalls::default();
    stalls.waiting("a".into(), 5, None);
    stalls.refused(4, stall("PodSecurity"));
    assert_eq!(reason(&stalls), None);
    stalls.refused(6, stall("PodSecurity"));
    assert_eq!(reason(&stalls).as_deref(), Some("PodSecurity"));
    stalls.waiting("b".into(), 7, None);
    assert_eq!(reason(&stalls), None, "a pod was made after all");
}

#[test]
fn a_pod_that_never_ran_leaves_behind_why() {
    let mut stalls = Stalls::default();
    stalls.waiting("a".into(), 1, Some(stall("ErrImageNeverPull")));
    stalls.ended("a", 1, false);
    assert_eq!(stalls.lasting().map(|stall| stall.reason).as_deref(), Some("ErrImageNeverPull"));
}

#[test]
fn a_suspended_job_is_one_while_its_condition_says_so() {
    let mut stalls = Stalls::default();
    stalls.suspended(Some(stall("JobSuspended")));
    let (token, _) = stalls.wait().unwrap();
    stalls.suspended(Some(stall("JobSuspended")));
    stalls.lasted(token);
    assert_eq!(tell(&mut stalls).as_deref(), Some("JobSuspended"));
    stalls.suspended(None);
    assert_eq!(stalls.lasting(), None);
}
