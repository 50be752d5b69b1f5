//! What pods told before their Job was heard of. Pods of Jobs that are long retired come here too, without end: so it is
//! bounded, and the oldest go first. Pure.

use std::collections::{HashMap, VecDeque};

use crate::status::{SubjectKey, pod_tracker::PodState};

/// Jobs of which something is kept. A Job is heard of within moments of its pods.
const JOBS: usize = 1024;
/// PodTracker that are kept of one Job.
const OF_ONE: usize = 16;

/// See the module.
#[derive(Debug, Default)]
pub struct UnmatchedObservations {
    signs: HashMap<SubjectKey, Vec<(String, PodState)>>,
    order: VecDeque<SubjectKey>,
}

impl UnmatchedObservations {
    /// Keeps what a pod told of the Job with this uid.
    pub fn keep(&mut self, key: SubjectKey, uid: String, tells: PodState) {
        let signs = self.signs.entry(key.clone()).or_insert_with(|| {
            self.order.push_back(key);
            Vec::new()
        });
        if signs.len() >= OF_ONE {
            signs.remove(0);
        }
        signs.push((uid, tells));
        // What was taken has left its place in the order.
        while self.order.len() > JOBS {
            if let Some(oldest) = self.order.pop_front() {
                self.signs.remove(&oldest);
            }
        }
    }

    /// Takes what was told of the Jobs of this name.
    pub fn take(&mut self, key: &SubjectKey) -> Vec<(String, PodState)> {
        let signs = self.signs.remove(key).unwrap_or_default();
        if !signs.is_empty() {
            self.order.retain(|other| other != key);
        }
        signs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::names::{JobName, TemplateName};

    fn key(name: &str) -> SubjectKey {
        (TemplateName::try_from("simple").unwrap(), JobName::try_from(name).unwrap())
    }

    fn tells(pod: &str) -> PodState {
        PodState::Running { pod: pod.into(), created: 0 }
    }

    #[test]
    fn what_is_kept_is_given_once() {
        let mut early = UnmatchedObservations::default();
        early.keep(key("a"), "u".into(), tells("p"));
        assert_eq!(early.take(&key("b")), []);
        assert_eq!(early.take(&key("a")), [("u".to_owned(), tells("p"))]);
        assert_eq!(early.take(&key("a")), []);
    }

    #[test]
    fn it_is_bounded_and_the_newest_stay() {
        let mut early = UnmatchedObservations::default();
        for n in 0..3 * JOBS {
            early.keep(key(&format!("job-{n}")), "u".into(), tells("p"));
        }
        for n in 0..3 * OF_ONE {
            early.keep(key("many"), "u".into(), tells(&n.to_string()));
        }
        assert_eq!((early.signs.len(), early.order.len()), (JOBS, JOBS));
        assert!(early.take(&key("job-0")).is_empty());
        assert_eq!(early.take(&key(&format!("job-{}", 3 * JOBS - 1))).len(), 1);
        let many = early.take(&key("many"));
        assert_eq!(
            (many.len(), many.last().unwrap().1.clone()),
            (OF_ONE, tells(&(3 * OF_ONE - 1).to_string()))
        );
    }
}
