//! The ends of Jobs that went while another replica reported, or none.
//!
//! Every replica watches, whoever reports. Where the one that reports is killed, or cannot renew its Lease in time, a Job may end
//! and be deleted before the next one begins to: then it is in no list, and only who watched can tell how it ended.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use dispatcher_core::contract::job::{JobState, Presence};

/// How many are remembered, of the newest; each is about as large as its status.
const MOST: usize = 10_000;

/// The last states of Jobs that the watch saw go with a final condition. Clones are the same one.
#[derive(Debug, Clone, Default)]
pub struct Tombstones(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    by_uid: HashMap<String, JobState>,
    /// The uids, the oldest first.
    order: VecDeque<String>,
}

impl Tombstones {
    /// Remembers the last state of a Job that is gone, where it is an end.
    pub(super) fn note(&self, state: &JobState) {
        // Of a retired one all is told.
        if state.retired || state.outcome().is_none() {
            return;
        }
        let Kept { by_uid, order } = &mut *self.kept();
        let gone = state.clone().with_presence(Presence::DeletedUnverified);
        if by_uid.insert(state.uid.clone(), gone).is_some() {
            return;
        }
        order.push_back(state.uid.clone());
        if order.len() > MOST {
            order.pop_front().into_iter().for_each(|uid| drop(by_uid.remove(&uid)));
        }
    }

    /// The last state of a Job that is gone, where it was seen to end.
    pub(super) fn of(&self, uid: &str) -> Option<JobState> {
        self.kept().by_uid.get(uid).cloned()
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use dispatcher_core::testing::a_job;

    fn gone(uid: &str, condition: &str) -> JobState {
        a_job(uid, 1, json!({"conditions": [{"type": condition, "status": "True"}]}))
    }

    #[test]
    fn an_end_that_was_seen_is_known_when_the_job_is_gone() {
        let witnessed = Tombstones::default();
        witnessed.note(&gone("ended", "Complete"));
        witnessed.note(&gone("not-ended", "SuccessCriteriaMet"));
        let state = witnessed.of("ended").unwrap();
        assert_eq!(state.presence, Presence::DeletedUnverified);
        assert_eq!(state.outcome().unwrap().result.to_string(), "Complete");
        assert!(witnessed.of("not-ended").is_none());
    }

    #[test]
    fn only_the_newest_are_remembered() {
        let witnessed = Tombstones::default();
        (0..=MOST).for_each(|number| witnessed.note(&gone(&number.to_string(), "Failed")));
        assert!(witnessed.of("0").is_none());
        assert!(witnessed.of("1").is_some() && witnessed.of(&MOST.to_string()).is_some());
    }
}
