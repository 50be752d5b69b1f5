//! Faults of running watches.

use std::collections::VecDeque;

use super::calls::Calls;
use crate::call::Call;

/// Older injected faults are dropped, even if no watch has received them.
const MAX_PENDING: usize = 256;

/// A one-time fault of a running watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchFault {
    /// The watch ends normally, as at its timeout.
    End,
    /// The connection breaks.
    Break,
    /// The watch sends half of its next event, then ends.
    Truncate,
    /// The watch sends an `ERROR` event with this code (410, for example), then ends.
    Error(u16),
}

/// A lasting change of how a watch behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// The watch stays open without events or bookmarks, and ignores its timeout.
    Stall,
    /// The watch sends events, but no bookmarks.
    NoBookmarks,
    /// The watch sends each event twice.
    Repeat,
    /// The watch reads events in batches and sends only the last event of each object.
    ///
    /// Combined with [`Self::Stall`], one batch holds everything that happened until
    /// [`Faults::reset_behaviours`](super::Faults::reset_behaviours).
    Merge,
}

#[derive(Default)]
pub(super) struct Rules {
    /// Injected faults with their sequence numbers.
    faults: VecDeque<(u64, Calls, WatchFault)>,
    last: u64,
    behaviours: Vec<(Calls, Behaviour)>,
}

impl Rules {
    pub(super) fn inject(&mut self, calls: Calls, fault: WatchFault) {
        self.last += 1;
        self.faults.push_back((self.last, calls, fault));
        if self.faults.len() > MAX_PENDING {
            self.faults.pop_front();
        }
    }

    /// The sequence number of the newest fault.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// The first fault for `call` with a sequence number above `after`.
    pub(super) fn next_fault(&self, after: u64, call: &Call) -> Option<(u64, WatchFault)> {
        let mut new = self.faults.iter().filter(|(number, calls, _)| *number > after && calls.matches(call));
        new.next().map(|(number, _, fault)| (*number, *fault))
    }

    pub(super) fn set_behaviour(&mut self, calls: Calls, behaviour: Behaviour) {
        self.behaviours.push((calls, behaviour));
    }

    pub(super) fn applies(&self, behaviour: Behaviour, call: &Call) -> bool {
        self.behaviours.iter().any(|(calls, found)| *found == behaviour && calls.matches(call))
    }

    pub(super) fn reset_behaviours(&mut self) {
        self.behaviours.clear();
    }
}
