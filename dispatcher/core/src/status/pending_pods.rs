//! The Jobs of the pods that wait. A Kubernetes Event names only its pod.
//!
//! Pods and Kubernetes Events come from two watches, in any order. A Warning that arrives before
//! its pod is kept, and follows the observation of the pod. The number of kept Warnings is limited.

use std::collections::{HashMap, VecDeque};

use crate::{
    contract::names::{JobName, TemplateName},
    status::pod_observation::{PodObservation, PodState},
};

/// The maximum number of Warnings that wait for their pod. The oldest is dropped first. Most belong
/// to pods that run, or to pods of other programs.
const MAX_EARLY: usize = 256;

/// The pods that wait, by uid, and the Warnings that wait for their pod.
#[derive(Debug, Default)]
pub struct PendingPods {
    owners: HashMap<String, Owner>,
    early: VecDeque<(String, PodState)>,
}

/// The Job of a pod.
#[derive(Debug, Clone)]
struct Owner {
    template: Option<TemplateName>,
    name: JobName,
    uid: String,
}

impl Owner {
    fn observation(&self, state: PodState) -> PodObservation {
        let Self { template, name, uid } = self.clone();
        PodObservation { template, name, uid, state }
    }
}

impl PendingPods {
    /// Records that a pod waits. Call it after the pod's own observation is sent. Returns the
    /// Warnings that arrived early.
    pub fn waits(&mut self, observation: &PodObservation, pod: &str) -> Vec<PodObservation> {
        let PodObservation { template, name, uid, .. } = observation.clone();
        let owner = Owner { template, name, uid };
        let mut found = Vec::new();
        self.early.retain(|(of, warning)| {
            if of == pod {
                found.push(owner.observation(warning.clone()));
            }
            of != pod
        });
        self.owners.insert(pod.to_owned(), owner);
        found
    }

    /// Records that a pod does not wait any more. Call it before the pod's own observation is sent.
    pub fn does_not_wait(&mut self, pod: &str) {
        self.owners.remove(pod);
    }

    /// A Warning about a pod. Returns its observation if the pod waits; otherwise keeps it.
    pub fn warning(&mut self, pod: String, state: PodState) -> Option<PodObservation> {
        if let Some(owner) = self.owners.get(&pod) {
            return Some(owner.observation(state));
        }
        // A Warning repeats for as long as its cause lasts.
        self.early.retain(|(of, warning)| *of != pod || reason(warning) != reason(&state));
        if self.early.len() >= MAX_EARLY {
            self.early.pop_front();
        }
        self.early.push_back((pod, state));
        None
    }

    /// Forgets the pods: a new list reports them again.
    pub fn clear(&mut self) {
        self.owners.clear();
    }
}

fn reason(state: &PodState) -> Option<&str> {
    if let PodState::Warning { stall, .. } = state { Some(stall.reason.as_str()) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::event::Stall;

    fn warning(pod: &str) -> PodState {
        let stall = Stall { reason: "FailedMount".into(), message: "m".into() };
        PodState::Warning { pod: Some(pod.into()), at: 1, stall }
    }

    fn observation(pod: &str) -> PodObservation {
        PodObservation {
            template: TemplateName::try_from("simple").ok(),
            name: JobName::try_from("a").unwrap(),
            uid: "u".into(),
            state: PodState::Running { pod: pod.into(), created: 1 },
        }
    }

    #[test]
    fn warning_that_arrives_before_its_pod_follows_it_once() {
        let mut pods = PendingPods::default();
        // A repeated Warning is kept once.
        assert_eq!(pods.warning("p".into(), warning("p")), None);
        assert_eq!(pods.warning("p".into(), warning("p")), None);
        let expected = PodObservation { state: warning("p"), ..observation("p") };
        assert_eq!(pods.waits(&observation("p"), "p"), std::slice::from_ref(&expected));
        assert_eq!(pods.waits(&observation("p"), "p"), []);
        assert_eq!(pods.warning("p".into(), warning("p")), Some(expected));
    }

    #[test]
    fn warning_about_a_pod_that_does_not_wait_has_no_observation() {
        let mut pods = PendingPods::default();
        pods.waits(&observation("p"), "p");
        pods.does_not_wait("p");
        assert_eq!(pods.warning("p".into(), warning("p")), None);
    }

    #[test]
    fn number_of_early_warnings_is_limited() {
        let mut pods = PendingPods::default();
        for n in 0..3 * MAX_EARLY {
            pods.warning(n.to_string(), warning("p"));
        }
        assert_eq!(pods.early.len(), MAX_EARLY);
        assert!(pods.waits(&observation("0"), "0").is_empty(), "the oldest is dropped");
    }
}
