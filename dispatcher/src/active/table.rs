//! The table itself. Pure.

use std::collections::{HashMap, HashSet};

use crate::contract::{
    job::JobState,
    names::{JobName, Kind, RequestId},
};

/// Which slot.
pub(super) type Number = u64;

#[derive(Debug, Default)]
pub(super) struct Table {
    kinds: HashMap<Kind, OfKind>,
    last: Number,
    complete: bool,
    /// The uids of the list that is under way.
    in_list: Option<HashSet<String>>,
}

#[derive(Debug, Default)]
struct OfKind {
    unfinished: HashMap<String, (JobName, RequestId)>,
    slots: HashMap<Number, Under>,
}

/// A slot: a request under work.
#[derive(Debug, Default)]
struct Under {
    request: Option<RequestId>,
    /// The watch has told of its Job since the claim.
    seen: bool,
    /// Nobody works on it any more, and the watch has not told of its Job yet.
    awaited: bool,
    /// It was awaited before the list under way began: if it is not in there, it is gone.
    before_list: bool,
}

impl OfKind {
    fn used(&self) -> usize {
        self.unfinished.len() + self.slots.values().filter(|slot| !slot.seen).count()
    }
}

impl Table {
    /// Numbers of new slots: as many as the limit leaves, and at most `most`.
    pub(super) fn reserve(&mut self, kind: &Kind, limit: usize, most: usize) -> Vec<Number> {
        if !self.complete {
            return vec![];
        }
        let of_kind = self.kinds.entry(kind.clone()).or_default();
        let free = limit.saturating_sub(of_kind.used()).min(most);
        let mut numbers = Vec::with_capacity(free);
        for _ in 0..free {
            self.last += 1;
            of_kind.slots.insert(self.last, Under::default());
            numbers.push(self.last);
        }
        numbers
    }

    pub(super) fn claim(&mut self, kind: &Kind, number: Number, id: &RequestId) {
        if let Some(slot) = self.slot(kind, number) {
            slot.request = Some(id.clone());
        }
    }

    /// The request's Job is there, unless it is over already.
    pub(super) fn has(&mut self, kind: &Kind, number: Number, uid: &str, finished: bool) {
        let Some(of_kind) = self.kinds.get_mut(kind) else { return };
        let counted = of_kind.unfinished.contains_key(uid);
        if let Some(slot) = of_kind.slots.get_mut(&number) {
            // Whatever the watch will tell of it has been told, or will be.
            slot.awaited = !(finished || counted || slot.seen);
        }
    }

    /// Nobody works on it any more: it stays only while its Job is awaited.
    pub(super) fn release(&mut self, kind: &Kind, number: Number) {
        if let Some(of_kind) = self.kinds.get_mut(kind)
            && of_kind.slots.get(&number).is_some_and(|slot| !slot.awaited)
        {
            of_kind.slots.remove(&number);
        }
    }

    /// The watch tells of a Job; one that is gone is finished.
    pub(super) fn apply(&mut self, state: &JobState, finished: bool) {
        let JobState { kind, uid, name, request_id: id, .. } = state;
        if let Some(in_list) = &mut self.in_list {
            in_list.insert(uid.clone());
        }
        let of_kind = self.kinds.entry(kind.clone()).or_default();
        if finished {
            of_kind.unfinished.remove(uid);
        } else {
            of_kind.unfinished.insert(uid.clone(), (name.clone(), id.clone()));
        }
        of_kind.slots.retain(|_, slot| {
            let seen = slot.request.as_ref() == Some(id);
            slot.seen |= seen;
            !(seen && slot.awaited)
        });
    }

    pub(super) fn list_begins(&mut self) {
        self.in_list = Some(HashSet::new());
        for slot in self.kinds.values_mut().flat_map(|of_kind| of_kind.slots.values_mut()) {
            slot.before_list = slot.awaited;
        }
    }

    /// What is in no list is gone.
    pub(super) fn listed(&mut self) {
        let in_list = self.in_list.take().unwrap_or_default();
        for of_kind in self.kinds.values_mut() {
            of_kind.unfinished.retain(|uid, _| in_list.contains(uid));
            of_kind.slots.retain(|_, slot| !(slot.awaited && slot.before_list));
        }
        self.complete = true;
    }

    /// How many unfinished Jobs each kind has; `None` before they are listed.
    pub(super) fn counts(&self) -> Option<Vec<(Kind, usize)>> {
        let count = |(kind, of_kind): (&Kind, &OfKind)| (kind.clone(), of_kind.unfinished.len());
        self.complete.then(|| self.kinds.iter().map(count).collect())
    }

    /// The name of the unfinished Job that this request has.
    pub(super) fn name_of(&self, kind: &Kind, id: &RequestId) -> Option<JobName> {
        let mut jobs = self.kinds.get(kind)?.unfinished.values();
        jobs.find(|(_, of)| of == id).map(|(name, _)| name.clone())
    }

    fn slot(&mut self, kind: &Kind, number: Number) -> Option<&mut Under> {
        self.kinds.get_mut(kind)?.slots.get_mut(&number)
    }
}

#[cfg(test)]
mod tests;
