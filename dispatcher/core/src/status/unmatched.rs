//! Keeps the observations of a pod that arrive before the observation of its Job.
//!
//! The observations of a retired Job's pods arrive here too, and no Job takes them. The number of
//! entries is therefore limited; the oldest is dropped first.

use std::collections::{HashMap, VecDeque};

use crate::{contract::names::JobName, status::pod_observation::PodState};

/// The maximum number of Job names. An entry is usually short-lived: the observation of the Job
/// follows moments after that of its first pod.
const MAX_JOBS: usize = 1024;
/// The maximum number of observations per Job name.
const MAX_PER_JOB: usize = 16;

/// Observations of pods by Job name.
#[derive(Debug, Default)]
pub struct UnmatchedObservations {
    by_job: HashMap<JobName, Vec<(String, PodState)>>,
    /// The names in `by_job`, oldest first.
    order: VecDeque<JobName>,
}

impl UnmatchedObservations {
    /// Keeps an observation of a pod or a Kubernetes Event. `name` and `uid` are its Job's.
    pub fn insert(&mut self, name: JobName, uid: String, state: PodState) {
        let observations = self.by_job.entry(name.clone()).or_insert_with(|| {
            self.order.push_back(name);
            Vec::new()
        });
        if observations.len() >= MAX_PER_JOB {
            observations.remove(0);
        }
        observations.push((uid, state));
        while self.order.len() > MAX_JOBS {
            if let Some(oldest) = self.order.pop_front() {
                self.by_job.remove(&oldest);
            }
        }
    }

    /// Removes and returns the observations for a Job name, oldest first. Each is a pair of the
    /// Job's uid and the pod's state.
    pub fn take(&mut self, name: &JobName) -> Vec<(String, PodState)> {
        let observations = self.by_job.remove(name).unwrap_or_default();
        if !observations.is_empty() {
            self.order.retain(|other| other != name);
        }
        observations
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> JobName {
        JobName::try_from(name).unwrap()
    }

    fn running(pod: &str) -> PodState {
        PodState::Running { pod: pod.into(), created: 0 }
    }

    #[test]
    fn take_returns_each_observation_once() {
        let mut unmatched = UnmatchedObservations::default();
        unmatched.insert(key("a"), "u".into(), running("p"));
        assert_eq!(unmatched.take(&key("b")), []);
        assert_eq!(unmatched.take(&key("a")), [("u".to_owned(), running("p"))]);
        assert_eq!(unmatched.take(&key("a")), []);
    }

    #[test]
    fn insert_drops_the_oldest_observations_at_the_limits() {
        let mut unmatched = UnmatchedObservations::default();
        for n in 0..3 * MAX_JOBS {
            unmatched.insert(key(&format!("job-{n}")), "u".into(), running("p"));
        }
        for n in 0..3 * MAX_PER_JOB {
            unmatched.insert(key("many"), "u".into(), running(&n.to_string()));
        }
        assert_eq!((unmatched.by_job.len(), unmatched.order.len()), (MAX_JOBS, MAX_JOBS));
        assert!(unmatched.take(&key("job-0")).is_empty());
        assert_eq!(unmatched.take(&key(&format!("job-{}", 3 * MAX_JOBS - 1))).len(), 1);
        let many = unmatched.take(&key("many"));
        assert_eq!(
            (many.len(), many.last().unwrap().1.clone()),
            (MAX_PER_JOB, running(&(3 * MAX_PER_JOB - 1).to_string()))
        );
    }
}
