use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn stall(reason: &str) -> Stall {
    Stall { reason: reason.into(), message: "m".into() }
}

fn blocked(reason: &str) -> Wait {
    Wait::Blocked(stall(reason))
}

fn starting() -> Wait {
    Wait::Starting(stall("ContainerCreating"))
}

/// Publishes the stall that is due and returns its reason.
fn publish(stalls: &mut StallTracker) -> Option<String> {
    let due = stalls.next();
    if let Some(stall) = &due {
        stalls.mark_published(stall);
    }
    due.map(|stall| stall.reason)
}

/// Lets the timers up to this duration expire, and publishes every stall that is due.
fn publish_after(stalls: &mut StallTracker, delay: Duration) -> Vec<String> {
    loop {
        let timers = stalls.take_timers();
        let expired: Vec<u64> =
            timers.iter().filter(|(_, duration)| *duration <= delay).map(|(token, _)| *token).collect();
        if expired.is_empty() {
            return std::iter::from_fn(|| publish(stalls)).collect();
        }
        expired.into_iter().for_each(|token| stalls.timer_expired(token));
    }
}

#[test]
fn permanent_reason_is_published_once_without_delay() {
    let mut stalls = StallTracker::default();
    stalls.pod_waiting("p".into(), 1, 1, blocked("ErrImagePull"));
    assert!(stalls.take_timers().is_empty());
    assert_eq!(publish(&mut stalls).as_deref(), Some("ErrImagePull"));
    for reason in ["ImagePullBackOff", "ErrImagePull"] {
        stalls.pod_waiting("p".into(), 1, 1, blocked(reason));
        assert_eq!(publish(&mut stalls), None, "the kubelet alternates between the two reasons");
    }
    stalls.pod_waiting("p".into(), 1, 1, blocked("CreateContainerConfigError"));
    assert_eq!(publish(&mut stalls).as_deref(), Some("CreateContainerConfigError"), "a different reason");
}

#[test]
fn temporary_reason_is_published_after_a_delay() {
    let mut stalls = StallTracker::default();
    stalls.pod_waiting("p".into(), 1, 1, blocked("Unschedulable"));
    assert_eq!(stalls.next(), None);
    let timers = stalls.take_timers();
    assert!(stalls.take_timers().is_empty(), "one timer per stall");
    stalls.pod_waiting("p".into(), 1, 1, blocked("Unschedulable"));
    assert!(stalls.take_timers().is_empty(), "the same reason does not restart the timer");
    stalls.timer_expired(timers[0].0);
    assert_eq!(publish(&mut stalls).as_deref(), Some("Unschedulable"));
    // This stall resolves before its timer expires.
    stalls.pod_waiting("q".into(), 2, 2, blocked("QuotaExceeded"));
    let timers = stalls.take_timers();
    stalls.pod_waiting("q".into(), 2, 2, starting());
    timers.iter().for_each(|(token, _)| stalls.timer_expired(*token));
    assert_eq!(publish(&mut stalls), None);
}

#[test]
fn running_pod_prevents_a_stall() {
    let mut stalls = StallTracker::default();
    stalls.pod_running("a".into(), 1);
    stalls.pod_waiting("b".into(), 1, 1, blocked("ErrImagePull"));
    stalls.pod_warning("a", 9, stall("Unhealthy"));
    assert!(publish_after(&mut stalls, START_DELAY).is_empty());
    stalls.pod_ended("a", 1, true);
    assert_eq!(publish(&mut stalls).as_deref(), Some("ErrImagePull"));
}

/// A lost node: its pod never ends, and the replacement finds no other node.
#[test]
fn terminating_pod_does_not_hide_the_stall_of_its_replacement() {
    let mut stalls = StallTracker::default();
    stalls.pod_running("a".into(), 1);
    stalls.pod_terminating("a", 1);
    stalls.pod_waiting("b".into(), 9, 9, blocked("Unschedulable"));
    assert_eq!(publish_after(&mut stalls, STALL_DELAY), ["Unschedulable"]);
}

#[test]
fn same_reason_is_published_again_after_a_pod_has_run() {
    let mut stalls = StallTracker::default();
    stalls.pod_waiting("a".into(), 1, 1, blocked("ErrImagePull"));
    assert!(publish(&mut stalls).is_some());
    stalls.pod_running("a".into(), 1);
    stalls.pod_ended("a", 1, true);
    stalls.pod_waiting("b".into(), 2, 2, blocked("ErrImagePull"));
    assert!(publish(&mut stalls).is_some());
}

#[test]
fn warning_of_any_reason_that_lasts_while_its_pod_waits_is_published() {
    for reason in ["FailedMapVolume", "FailedPrepareDynamicResources", "Unhealthy", "ReasonOfTomorrow"] {
        let mut stalls = StallTracker::default();
        stalls.pod_waiting("p".into(), 1, 1, starting());
        stalls.pod_warning("p", 2, stall(reason));
        assert_eq!(stalls.next(), None);
        assert_eq!(publish_after(&mut stalls, STALL_DELAY), [reason]);
    }
}

#[test]
fn alternating_warnings_do_not_restart_each_other() {
    let mut stalls = StallTracker::default();
    stalls.pod_waiting("p".into(), 1, 1, starting());
    stalls.pod_warning("p", 2, stall("FailedMount"));
    let first = stalls.take_timers();
    stalls.pod_warning("p", 4, stall("FailedMapVolume"));
    stalls.pod_warning("p", 6, stall("FailedMount"));
    first.iter().for_each(|(token, _)| stalls.timer_expired(*token));
    assert_eq!(publish(&mut stalls).as_deref(), Some("FailedMount"));
}

#[test]
fn warning_from_before_the_last_progress_of_its_pod_is_outdated() {
    let mut stalls = StallTracker::default();
    stalls.pod_waiting("p".into(), 1, 1, starting());
    stalls.pod_warning("p", 3, stall("FailedMount"));
    stalls.pod_waiting("p".into(), 1, 4, starting());
    stalls.pod_warning("p", 2, stall("FailedCreatePodSandBox"));
    assert!(publish_after(&mut stalls, STALL_DELAY).is_empty());
}

#[test]
fn newest_warning_of_a_reason_has_the_message() {
    let warning = |message: &str| Stall { reason: "FailedMount".into(), message: message.into() };
    let mut stalls = StallTracker::default();
    stalls.pod_waiting("p".into(), 1, 1, starting());
    stalls.pod_warning("p", 3, warning("new"));
    stalls.pod_warning("p", 2, warning("old"));
    for (token, _) in stalls.take_timers() {
        stalls.timer_expired(token);
    }
    assert_eq!(stalls.next(), Some(warning("new")));
}

#[test]
fn status_of_a_pod_hides_its_warnings() {
    let mut stalls = StallTracker::default();
    stalls.pod_waiting("p".into(), 1, 1, starting());
    stalls.pod_warning("p", 2, stall("Failed"));
    stalls.pod_waiting("p".into(), 1, 1, blocked("ErrImagePull"));
    assert_eq!(publish_after(&mut stalls, STALL_DELAY), ["ErrImagePull"]);
}

#[test]
fn start_that_does_not_complete_is_published_after_a_minute() {
    let mut stalls = StallTracker::default();
    stalls.pod_waiting("p".into(), 1, 1, Wait::Starting(stall("ContainersNotInitialized")));
    assert!(publish_after(&mut stalls, STALL_DELAY).is_empty());
    let mut stalls = StallTracker::default();
    stalls.pod_waiting("p".into(), 1, 1, Wait::Starting(stall("ContainersNotInitialized")));
    assert_eq!(publish_after(&mut stalls, START_DELAY), ["ContainersNotInitialized"]);
}

#[test]
fn warning_about_the_job_older_than_the_newest_pod_is_ignored() {
    let mut stalls = StallTracker::default();
    stalls.pod_waiting("a".into(), 5, 5, starting());
    stalls.job_warning(4, stall("PodSecurity"));
    assert_eq!(stalls.next(), None);
    stalls.job_warning(6, stall("PodSecurity"));
    assert_eq!(stalls.next().map(|stall| stall.reason).as_deref(), Some("PodSecurity"));
    stalls.pod_waiting("b".into(), 7, 7, starting());
    assert_eq!(stalls.next(), None, "a newer pod exists");
}

#[test]
fn warning_that_announces_the_end_of_the_job_does_not_explain_it() {
    let mut stalls = StallTracker::default();
    stalls.job_warning(6, stall("BackoffLimitExceeded"));
    for (token, _) in stalls.take_timers() {
        stalls.timer_expired(token);
    }
    assert_eq!(stalls.explanation(Some(6)), None);
    assert!(stalls.explanation(Some(7)).is_some());
}

#[test]
fn stall_of_a_pod_that_never_ran_explains_the_outcome_after_the_pod_has_ended() {
    let mut stalls = StallTracker::default();
    stalls.pod_waiting("a".into(), 1, 1, blocked("ErrImageNeverPull"));
    stalls.pod_terminating("a", 1);
    stalls.pod_ended("a", 1, false);
    assert_eq!(stalls.explanation(None).map(|stall| stall.reason.as_str()), Some("ErrImageNeverPull"));
    assert_eq!(stalls.next(), None, "no pod waits any more");
}

#[test]
fn pod_that_a_list_lacks_is_deleted() {
    let mut stalls = StallTracker::default();
    stalls.pod_running("a".into(), 1);
    stalls.pod_waiting("b".into(), 1, 1, blocked("ErrImagePull"));
    stalls.pods_listing();
    stalls.pod_waiting("b".into(), 1, 1, blocked("ErrImagePull"));
    assert_eq!(stalls.next(), None, "the list is not complete");
    stalls.pods_listed();
    assert_eq!(publish(&mut stalls).as_deref(), Some("ErrImagePull"));
}

#[test]
fn suspended_job_is_stalled_until_its_condition_clears() {
    let mut stalls = StallTracker::default();
    stalls.suspended(Some(stall("JobSuspended")));
    let timers = stalls.take_timers();
    stalls.suspended(Some(stall("JobSuspended")));
    timers.iter().for_each(|(token, _)| stalls.timer_expired(*token));
    assert_eq!(publish(&mut stalls).as_deref(), Some("JobSuspended"));
    stalls.suspended(None);
    assert_eq!(stalls.explanation(None), None);
}

#[test]
fn reason_of_kueue_replaces_that_of_the_suspended_job() {
    let mut stalls = StallTracker::default();
    stalls.queued(Some(stall("KueuePending")));
    stalls.suspended(None);
    assert!(publish_after(&mut stalls, STALL_DELAY).is_empty(), "the Job is not suspended");
    stalls.suspended(Some(stall("JobSuspended")));
    assert_eq!(publish_after(&mut stalls, STALL_DELAY), ["KueuePending"]);
    // Kueue admits the Job before the Job is resumed.
    stalls.queued(None);
    stalls.suspended(Some(stall("JobSuspended")));
    stalls.suspended(None);
    assert!(publish_after(&mut stalls, STALL_DELAY).is_empty());
}

/// Two evictions with the same reason are two stalls, since the pod ran in between.
#[test]
fn eviction_is_published_once_each_time_that_a_pod_has_run() {
    let mut stalls = StallTracker::default();
    for pod in ["a", "b"] {
        stalls.queued(None);
        stalls.suspended(None);
        stalls.pod_running(pod.into(), 1);
        stalls.queued(Some(stall("KueuePreempted")));
        stalls.suspended(Some(stall("JobSuspended")));
        assert!(publish_after(&mut stalls, STALL_DELAY).is_empty(), "the pod still runs");
        stalls.pod_terminating(pod, 1);
        stalls.pod_ended(pod, 1, true);
        assert_eq!(publish_after(&mut stalls, STALL_DELAY), ["KueuePreempted"]);
        stalls.suspended(Some(stall("JobSuspended")));
        assert!(publish_after(&mut stalls, STALL_DELAY).is_empty());
    }
}

/// `Pending` is a reason of Kueue and a step of a pod's start.
#[test]
fn pending_of_kueue_does_not_hide_a_pod_that_does_not_start() {
    let admitted = || {
        let mut stalls = StallTracker::default();
        stalls.queued(Some(stall("KueuePending")));
        stalls.suspended(Some(stall("JobSuspended")));
        assert_eq!(publish_after(&mut stalls, STALL_DELAY), ["KueuePending"]);
        stalls.queued(None);
        stalls.suspended(None);
        stalls.pod_waiting("p".into(), 1, 1, Wait::Starting(stall("Pending")));
        stalls
    };
    assert!(publish_after(&mut admitted(), STALL_DELAY).is_empty());
    assert_eq!(publish_after(&mut admitted(), START_DELAY), ["Pending"]);
}

#[test]
fn memory_of_a_thousand_pods_is_bounded() {
    let mut stalls = StallTracker::default();
    for pod in 0..1000 {
        stalls.pod_waiting(pod.to_string(), 1, 1, starting());
        for warning in 0..100 {
            stalls.pod_warning(&pod.to_string(), 2, stall(&format!("reason-{}", pod * warning)));
        }
    }
    assert!(stalls.reasons.len() <= MAX_REASONS);
    (0..1000).for_each(|pod: i32| stalls.pod_ended(&pod.to_string(), 1, true));
    assert!(stalls.reasons.len() == 0 && stalls.pods.len() == 0);
}

/// An observation of one of three pods, which are created one after the other.
#[derive(Debug, Clone)]
enum Step {
    Waits(usize, i64, Option<&'static str>),
    Warns(usize, i64, &'static str),
    WarnsJob(i64, &'static str),
    Runs(usize),
    Terminates(usize),
    Ends(usize, bool),
}

const REASONS: [&str; 4] = ["ErrImagePull", "FailedMount", "FailedMapVolume", "Unschedulable"];

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (pod, time) = (0usize..3, 1i64..9);
    let reason = || prop::sample::select(REASONS.to_vec());
    let step = prop_oneof![
        4 => (pod.clone(), time.clone(), prop::option::of(reason())).prop_map(|(p, t, r)| Step::Waits(p, t, r)),
        4 => (pod.clone(), time.clone(), reason()).prop_map(|(p, t, r)| Step::Warns(p, t, r)),
        2 => (time, reason()).prop_map(|(t, r)| Step::WarnsJob(t, r)),
        1 => pod.clone().prop_map(Step::Runs),
        1 => pod.clone().prop_map(Step::Terminates),
        1 => (pod, any::<bool>()).prop_map(|(p, r)| Step::Ends(p, r)),
    ];
    prop::collection::vec(step, 0..24)
}

fn apply(stalls: &mut StallTracker, step: &Step) {
    let uid = |pod: usize| pod.to_string();
    let created = |pod: usize| i64::try_from(pod).unwrap();
    match *step {
        Step::Waits(pod, time, reason) => {
            stalls.pod_waiting(uid(pod), created(pod), time, reason.map_or_else(starting, blocked));
        }
        Step::Warns(pod, time, reason) => stalls.pod_warning(&uid(pod), time, stall(reason)),
        Step::WarnsJob(time, reason) => stalls.job_warning(time, stall(reason)),
        Step::Runs(pod) => stalls.pod_running(uid(pod), created(pod)),
        Step::Terminates(pod) => stalls.pod_terminating(&uid(pod), created(pod)),
        Step::Ends(pod, ran) => stalls.pod_ended(&uid(pod), created(pod), ran),
    }
}

/// What a process lists that starts after these steps: the last state of each pod that exists, with
/// the latest progress, and the Warnings.
fn list(steps: &[Step]) -> (Vec<Step>, Vec<Step>) {
    let mut pods: BTreeMap<usize, Step> = BTreeMap::new();
    let mut progress = BTreeMap::<usize, i64>::new();
    let mut warnings = Vec::new();
    for step in steps {
        match step {
            Step::Warns(..) | Step::WarnsJob(..) => warnings.push(step.clone()),
            Step::Waits(pod, time, reason) => {
                let latest = progress.entry(*pod).or_default();
                *latest = (*latest).max(*time);
                pods.insert(*pod, Step::Waits(*pod, *latest, *reason));
            }
            Step::Runs(pod) | Step::Terminates(pod) | Step::Ends(pod, _) => {
                pods.insert(*pod, step.clone());
            }
        }
    }
    (pods.into_values().collect(), warnings)
}

/// Everything that would be published from now on, if nothing changes and nothing was published.
fn published(mut stalls: StallTracker) -> BTreeSet<String> {
    stalls.forget_published();
    publish_after(&mut stalls, START_DELAY).into_iter().collect()
}

/// A history that Kubernetes can produce: an ended pod stays ended, a terminating one only ends, and
/// a pod's Warnings begin when it exists and waits.
fn possible(steps: Vec<Step>) -> Vec<Step> {
    let mut ranks: BTreeMap<usize, u8> = BTreeMap::new();
    let mut is_possible = |step: &Step| {
        let (pod, rank) = match step {
            Step::WarnsJob(..) => return true,
            Step::Warns(pod, ..) => return ranks.get(pod) == Some(&0),
            Step::Waits(pod, ..) => (pod, 0),
            Step::Runs(pod) => (pod, 1),
            Step::Terminates(pod) => (pod, 2),
            Step::Ends(pod, _) => (pod, 3),
        };
        let current = ranks.entry(*pod).or_default();
        let possible = rank >= *current;
        *current = rank.max(*current);
        possible
    };
    steps.into_iter().filter(|step| is_possible(step)).collect()
}

proptest! {
    #[test]
    fn running_and_freshly_started_process_publish_the_same_stalls(
        steps in steps(), seed in any::<u64>(), relists in prop::collection::vec(any::<bool>(), 24),
    ) {
        let steps = possible(steps);
        // A process that has observed everything, with or without resyncs.
        let mut running = StallTracker::default();
        for (count, step) in steps.iter().enumerate() {
            apply(&mut running, step);
            let _ = running.take_timers();
            if relists[count] {
                running.pods_listing();
                let (pods, warnings) = list(&steps[..=count]);
                pods.iter().for_each(|step| apply(&mut running, step));
                running.pods_listed();
                warnings.iter().for_each(|step| apply(&mut running, step));
            }
        }
        // A process that starts now lists pods and Warnings in any order; a Warning follows its pod.
        let (mut pods, mut warnings) = list(&steps);
        let mut random = fastrand::Rng::with_seed(seed);
        random.shuffle(&mut pods);
        random.shuffle(&mut warnings);
        let mut fresh = StallTracker::default();
        for step in pods.iter().chain(&warnings) {
            apply(&mut fresh, step);
        }
        // Every delay has passed in both.
        for stalls in [&mut running, &mut fresh] {
            for reason in stalls.reasons.values_mut() {
                (reason.due, reason.timer_started, reason.left) = (false, false, reason.delay);
            }
        }
        prop_assert_eq!(published(running), published(fresh));
    }

    #[test]
    fn order_of_pods_and_warnings_does_not_matter(steps in steps(), seed in any::<u64>()) {
        let (mut pods, mut warnings) = list(&possible(steps));
        let mut random = fastrand::Rng::with_seed(seed);
        let mut first = StallTracker::default();
        pods.iter().chain(&warnings).for_each(|step| apply(&mut first, step));
        random.shuffle(&mut pods);
        random.shuffle(&mut warnings);
        let mut second = StallTracker::default();
        pods.iter().chain(&warnings).for_each(|step| apply(&mut second, step));
        prop_assert_eq!(published(first), published(second));
    }
}
