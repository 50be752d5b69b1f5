//! Tombstones: the last states of deleted Jobs, in every replica.
//!
//! If the leader fails after a Job has ended and before its outcome is stored, the Job may be
//! deleted before the next leader lists it. The next leader publishes the outcome from the
//! tombstone.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use dispatcher_core::contract::job::{JobState, Presence};
use tokio::time::Instant;

/// How long a tombstone is kept. A replica becomes the leader within seconds of the end of the
/// previous one, and then publishes the missing outcomes. The limit is no number, because each
/// retired Job leaves a tombstone in the other replicas.
const KEPT: Duration = Duration::from_secs(120);
/// The largest size of all tombstones together, in bytes.
const MAX_BYTES: usize = 32 * 1024 * 1024;
/// The size of a tombstone without its status.
const BASE_BYTES: usize = 768;

/// The last states of Jobs that the watch observed with a final condition before they left it.
#[derive(Debug, Default)]
pub(super) struct Tombstones(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    by_uid: HashMap<String, JobState>,
    /// The uids, oldest first.
    order: VecDeque<(Instant, String)>,
    /// The size of all tombstones together.
    bytes: usize,
}

fn size(state: &JobState) -> usize {
    BASE_BYTES + state.status.text().len()
}

impl State {
    fn drop_oldest(&mut self) {
        while let Some((added, _)) = self.order.front()
            && (added.elapsed() > KEPT || self.bytes > MAX_BYTES)
            && let Some((_, uid)) = self.order.pop_front()
        {
            self.bytes -= self.by_uid.remove(&uid).map_or(0, |removed| size(&removed));
        }
    }
}

impl Tombstones {
    /// Keeps the last state of a Job if it is final.
    pub(super) fn add(&self, state: &JobState) {
        if state.outcome().is_none() {
            return;
        }
        let mut kept = self.lock();
        let deleted = state.clone().with_presence(Presence::DeletedUnverified);
        kept.bytes += size(&deleted);
        match kept.by_uid.insert(state.uid.clone(), deleted) {
            Some(earlier) => kept.bytes -= size(&earlier),
            None => kept.order.push_back((Instant::now(), state.uid.clone())),
        }
        kept.drop_oldest();
    }

    /// The last state of a Job that left the watch, if it was final.
    pub(super) fn get(&self, uid: &str) -> Option<JobState> {
        let mut kept = self.lock();
        kept.drop_oldest();
        kept.by_uid.get(uid).cloned()
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

    #[tokio::test(start_paused = true)]
    async fn tombstones_are_kept_by_time_and_not_by_number() {
        let tombstones = Tombstones::default();
        (0..20_000).for_each(|number| tombstones.add(&deleted(&number.to_string(), "Failed")));
        tokio::time::advance(KEPT).await;
        assert!(tombstones.get("0").is_some());
        tombstones.add(&deleted("later", "Failed"));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(tombstones.get("0").is_none() && tombstones.get("19999").is_none());
        assert!(tombstones.get("later").is_some());
        assert_eq!(tombstones.lock().bytes, size(&deleted("later", "Failed")));
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
