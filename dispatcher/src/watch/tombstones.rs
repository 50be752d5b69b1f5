//! Tombstones: the last states of deleted Jobs, in every replica.
//!
//! If the leader fails after a Job has ended and before its outcome is stored, the Job may be
//! deleted before the next leader lists it. The next leader publishes the outcome from the
//! tombstone.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use dispatcher_core::contract::job::{JobState, Presence};

/// The largest number of tombstones. The oldest ones go first. Each is about as large as its
/// status.
const MAX_TOMBSTONES: usize = 10_000;

/// The last states of Jobs that the watch observed with a final condition before their deletion.
#[derive(Debug, Default)]
pub(super) struct Tombstones(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    by_uid: HashMap<String, JobState>,
    /// The uids, oldest first.
    order: VecDeque<String>,
}

impl Tombstones {
    /// Keeps the last state of a deleted Job if it is final.
    pub(super) fn add(&self, state: &JobState) {
        // The outcome of a retired Job is stored.
        if state.retired || state.outcome().is_none() {
            return;
        }
        let State { by_uid, order } = &mut *self.lock();
        let deleted = state.clone().with_presence(Presence::DeletedUnverified);
        if by_uid.insert(state.uid.clone(), deleted).is_some() {
            return;
        }
        order.push_back(state.uid.clone());
        if order.len() > MAX_TOMBSTONES
            && let Some(oldest) = order.pop_front()
        {
            by_uid.remove(&oldest);
        }
    }

    /// The last state of a deleted Job, if it was final.
    pub(super) fn get(&self, uid: &str) -> Option<JobState> {
        self.lock().by_uid.get(uid).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use dispatcher_core::testing::a_job;
    use serde_json::json;

    use super::*;

    fn deleted(uid: &str, condition: &str) -> JobState {
        a_job(uid, 1, json!({"conditions": [{"type": condition, "status": "True"}]}))
    }

    #[test]
    fn a_deleted_job_has_a_tombstone_if_its_last_state_was_final() {
        let tombstones = Tombstones::default();
        tombstones.add(&deleted("ended", "Complete"));
        tombstones.add(&deleted("not-ended", "SuccessCriteriaMet"));
        let state = tombstones.get("ended").unwrap();
        assert_eq!(state.presence, Presence::DeletedUnverified);
        assert_eq!(state.outcome().unwrap().result.to_string(), "Complete");
        assert!(tombstones.get("not-ended").is_none());
    }

    #[test]
    fn only_the_newest_tombstones_are_kept() {
        let tombstones = Tombstones::default();
        (0..=MAX_TOMBSTONES).for_each(|number| tombstones.add(&deleted(&number.to_string(), "Failed")));
        assert!(tombstones.get("0").is_none());
        assert!(tombstones.get("1").is_some() && tombstones.get(&MAX_TOMBSTONES.to_string()).is_some());
    }
}
