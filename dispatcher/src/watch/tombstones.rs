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

/// The largest number of tombstones. The oldest ones go first.
const MAX_TOMBSTONES: usize = 10_000;
/// The largest size of all statuses together, in bytes.
const MAX_BYTES: usize = 64 * 1024 * 1024;

/// The last states of Jobs that the watch observed with a final condition before their deletion.
#[derive(Debug, Default)]
pub(super) struct Tombstones(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    by_uid: HashMap<String, JobState>,
    /// The uids, oldest first.
    order: VecDeque<String>,
    /// The size of all statuses together.
    bytes: usize,
}

fn size(state: &JobState) -> usize {
    state.status.text().len()
}

impl Tombstones {
    /// Keeps the last state of a deleted Job if it is final.
    pub(super) fn add(&self, state: &JobState) {
        // The outcome of a retired Job is stored.
        if state.retired || state.outcome().is_none() {
            return;
        }
        let State { by_uid, order, bytes } = &mut *self.lock();
        let deleted = state.clone().with_presence(Presence::DeletedUnverified);
        *bytes += size(&deleted);
        match by_uid.insert(state.uid.clone(), deleted) {
            Some(earlier) => *bytes -= size(&earlier),
            None => order.push_back(state.uid.clone()),
        }
        while (order.len() > MAX_TOMBSTONES || *bytes > MAX_BYTES)
            && let Some(oldest) = order.pop_front()
        {
            *bytes -= by_uid.remove(&oldest).map_or(0, |removed| size(&removed));
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

    #[test]
    fn large_statuses_leave_room_for_fewer_tombstones() {
        let tombstones = Tombstones::default();
        let conditions = json!([{"type": "Complete", "status": "True"}]);
        let indexes = "1,".repeat(MAX_BYTES / 8);
        for number in 0..6 {
            let status = json!({"conditions": conditions, "completedIndexes": indexes});
            tombstones.add(&a_job(&number.to_string(), 1, status));
        }
        let kept: Vec<_> = (0..6).filter(|number| tombstones.get(&number.to_string()).is_some()).collect();
        assert_eq!(kept, [3, 4, 5]);
    }
}
