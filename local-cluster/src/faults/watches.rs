//! What running watches meet.

use std::collections::VecDeque;

use tokio::sync::watch;

use super::{Calls, Faults};
use crate::http::Call;

/// Strikes that no watch has looked at for so long are forgotten.
const STRIKES: usize = 256;

/// What happens to a running watch, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strike {
    /// It ends, as at its timeout.
    End,
    /// Its connection breaks.
    Break,
    /// Its next event is sent only by half, then it ends.
    Truncate,
    /// It gets an `ERROR` event with this code, 410 for example, and ends.
    Error(u16),
}

/// How a watch behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// It stays open and says nothing: no event, no bookmark, and it does not end at its timeout either.
    Stall,
    /// Events come, bookmarks do not.
    NoBookmarks,
    /// Each event comes twice.
    Repeat,
    /// Of the events of an object that are read together only the last is sent. Together with [`Self::Stall`] until
    /// [`Faults::behave_well`], all that happened meanwhile is read together.
    Merge,
}

#[derive(Default)]
pub(super) struct Rules {
    strikes: VecDeque<(u64, Calls, Strike)>,
    last: u64,
    behaviours: Vec<(Calls, Behaviour)>,
}

impl Rules {
    pub(super) fn strike(&mut self, calls: Calls, strike: Strike) {
        self.last += 1;
        self.strikes.push_back((self.last, calls, strike));
        if self.strikes.len() > STRIKES {
            self.strikes.pop_front();
        }
    }

    pub(super) fn behave(&mut self, calls: Calls, behaviour: Behaviour) {
        self.behaviours.push((calls, behaviour));
    }

    fn next_strike(&self, after: u64, call: &Call) -> Option<(u64, Strike)> {
        let mut new = self.strikes.iter().filter(|(number, calls, _)| *number > after && calls.matches(call));
        new.next().map(|(number, _, strike)| (*number, *strike))
    }

    fn is(&self, behaviour: Behaviour, call: &Call) -> bool {
        self.behaviours.iter().any(|(calls, found)| *found == behaviour && calls.matches(call))
    }

    pub(super) fn behave_well(&mut self) {
        self.behaviours.clear();
    }
}

/// The faults as one watch meets them.
pub(crate) struct WatchFaults {
    faults: Faults,
    call: Call,
    /// The last strike that was looked at.
    seen: u64,
    turns: watch::Receiver<u64>,
    /// It was held back, and has to merge what it reads next.
    merges_next: bool,
}

impl WatchFaults {
    /// Those of a watch that begins now: what struck before does not concern it.
    pub(crate) fn new(faults: &Faults, call: &Call) -> Self {
        let (seen, turns) = (faults.rules().watches.last, faults.shared.turns.subscribe());
        Self { faults: faults.clone(), call: call.clone(), seen, turns, merges_next: false }
    }

    /// What strikes now.
    pub(crate) fn strike(&mut self) -> Option<Strike> {
        if self.faults.refuses() {
            return Some(Strike::Break);
        }
        let next = self.faults.rules().watches.next_strike(self.seen, &self.call);
        next.map(|(number, strike)| {
            self.seen = number;
            strike
        })
    }

    /// Whether it behaves like that.
    pub(crate) fn is(&mut self, behaviour: Behaviour) -> bool {
        let has = |wanted| self.faults.rules().watches.is(wanted, &self.call);
        let (asked, merges) = (has(behaviour), has(Behaviour::Merge));
        match behaviour {
            Behaviour::Stall if asked => {
                self.merges_next = merges;
                true
            }
            Behaviour::Merge => std::mem::take(&mut self.merges_next) || asked,
            _ => asked,
        }
    }

    /// Returns when there is something new to look at.
    pub(crate) async fn changed(&mut self) {
        // It cannot be closed: `faults` holds the sender.
        let _ = self.turns.changed().await;
    }
}
