//! The Jobs that this replica has retired and that have not left the watch yet.
//!
//! A Job that leaves the selector looks like a deleted one. For a Job in this set nothing is left to
//! do: its outcome is stored. For any other Job a GET decides, so the set saves calls only.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

/// The largest number of uids. The oldest go first: a relist can hide that a Job left the watch.
const MAX_RETIRED: usize = 4096;

/// The uids. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct RetiredJobs(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    uids: HashSet<Arc<str>>,
    /// Oldest first. It may contain uids that were removed.
    order: VecDeque<Arc<str>>,
}

impl RetiredJobs {
    /// Adds a Job whose outcome is stored, before the patch.
    pub(super) fn add(&self, uid: &str) {
        let State { uids, order } = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let uid: Arc<str> = uid.into();
        if uids.insert(uid.clone()) {
            order.push_back(uid);
        }
        while order.len() > MAX_RETIRED
            && let Some(oldest) = order.pop_front()
        {
            uids.remove(&oldest);
        }
    }

    /// Removes a Job that left the watch. Returns whether this replica retired it.
    pub(super) fn remove(&self, uid: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).uids.remove(uid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retired_job_leaves_the_watch_once() {
        let retired = RetiredJobs::default();
        retired.add("a");
        // A refused patch is repeated.
        retired.add("a");
        assert!(!retired.remove("b"));
        assert!(retired.remove("a"));
        assert!(!retired.remove("a"), "a later deletion is one of a user");
    }

    #[test]
    fn number_of_jobs_is_limited() {
        let retired = RetiredJobs::default();
        (0..=MAX_RETIRED).for_each(|uid| retired.add(&uid.to_string()));
        assert!(!retired.remove("0"));
        assert!(retired.remove("1") && retired.remove(&MAX_RETIRED.to_string()));
    }
}
