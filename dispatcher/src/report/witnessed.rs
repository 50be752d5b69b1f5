//! The ends of Jobs that went while another replica reported, or none.
//!
//! Every replica watches, whoever reports. Where the one that reports is killed, or cannot renew its Lease in time, a Job may end
//! and be deleted before the next one begins to: then it is in no list, and only who watched can tell how it ended.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use kube::runtime::watcher::Event;

use crate::contract::job::{JobObject, JobState, Presence};

/// How many are remembered, of the newest: some 10 MB.
const MOST: usize = 10_000;

/// The last states of Jobs that the watch saw go with a final condition. Clones are the same one.
#[derive(Debug, Clone, Default)]
pub struct Witnessed(Arc<Mutex<VecDeque<JobState>>>);

impl Witnessed {
    /// Remembers the end that an event of the watch brings.
    pub(super) fn note(&self, event: &Event<JobObject>) {
        let Event::Delete(job) = event else { return };
        let Ok(state) = JobState::read(job) else { return };
        // Of a settled one all is told.
        if state.settled || state.outcome().is_none() {
            return;
        }
        let mut kept = self.kept();
        if kept.len() == MOST {
            kept.pop_front();
        }
        kept.push_back(state.with_presence(Presence::DeletedUnverified));
    }

    /// The last state of a Job that is gone, where it was seen to end.
    pub(super) fn of(&self, uid: &str) -> Option<JobState> {
        // From the newest: what is asked for has just gone.
        self.kept().iter().rev().find(|state| state.uid == uid).cloned()
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<JobState>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::contract::job::tests::an_object;

    fn gone(uid: &str, condition: &str) -> Event<JobObject> {
        Event::Delete(an_object(uid, 1, json!({"conditions": [{"type": condition, "status": "True"}]})))
    }

    #[test]
    fn an_end_that_was_seen_is_known_when_the_job_is_gone() {
        let witnessed = Witnessed::default();
        witnessed.note(&gone("ended", "Complete"));
        witnessed.note(&gone("not-ended", "SuccessCriteriaMet"));
        let state = witnessed.of("ended").unwrap();
        assert_eq!(state.presence, Presence::DeletedUnverified);
        assert_eq!(state.outcome().unwrap().result.to_string(), "Complete");
        assert!(witnessed.of("not-ended").is_none());
    }

    #[test]
    fn only_the_newest_are_remembered() {
        let witnessed = Witnessed::default();
        (0..=MOST).for_each(|number| witnessed.note(&gone(&number.to_string(), "Failed")));
        assert!(witnessed.of("0").is_none());
        assert!(witnessed.of("1").is_some() && witnessed.of(&MOST.to_string()).is_some());
    }
}
