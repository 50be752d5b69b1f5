//! The table itself. Pure.

use std::collections::{HashMap, HashSet};

use crate::contract::names::{Kind, RequestId};

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
    unfinished: HashSet<String>,
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
        let counted = of_kind.unfinished.contains(uid);
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
    pub(super) fn apply(&mut self, kind: &Kind, uid: &str, id: &RequestId, finished: bool) {
        if let Some(in_list) = &mut self.in_list {
            in_list.insert(uid.to_owned());
        }
        let of_kind = self.kinds.entry(kind.clone()).or_default();
        if finished {
            of_kind.unfinished.remove(uid);
        } else {
            of_kind.unfinished.insert(uid.to_owned());
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
            of_kind.unfinished.retain(|uid| in_list.contains(uid));
            of_kind.slots.retain(|_, slot| !(slot.awaited && slot.before_list));
        }
        self.complete = true;
    }

    fn slot(&mut self, kind: &Kind, number: Number) -> Option<&mut Under> {
        self.kinds.get_mut(kind)?.slots.get_mut(&number)
    }
}

#[cfg(test)]
mod tests;
