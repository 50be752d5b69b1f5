//! The board: the newest Jobs, and the changes since the last delta.
//!
//! A viewer reads the pages of the board, and applies every delta that was made since it began. It
//! keeps a row whose sequence is higher than the received one. So it shows the same rows as the
//! board, also if the board changes between two pages.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::row::{Brief, Row};
use crate::contract::names::{JobName, TemplateName};

/// The most rows of a board. A row has less than 2 KiB, so that a board has less than 20 MiB.
pub const MAX_ROWS: usize = 10_000;

/// The newest Jobs.
#[derive(Debug)]
pub struct Board {
    rows: BTreeMap<u64, Row>,
    by_name: HashMap<(TemplateName, JobName), u64>,
    /// The rows of ended Jobs, which make place for others first.
    ended: BTreeSet<u64>,
    max_rows: usize,
    last_sequence: u64,
    changed: BTreeSet<u64>,
    removed: BTreeSet<u64>,
    reset: bool,
}

/// Some changes of the board.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delta {
    /// Read the pages again.
    Reset,
    /// Rows that are new or changed, and the ids of rows that are gone.
    Changes {
        /// The rows.
        rows: Vec<Row>,
        /// The ids.
        removed: Vec<u64>,
    },
}

/// Some rows of the board, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The rows.
    pub rows: Vec<Row>,
    /// The next page has the rows before this id; `None` if this is the last page.
    pub next: Option<u64>,
}

impl Board {
    /// An empty board of at most this number of rows.
    #[must_use]
    pub fn new(max_rows: usize) -> Self {
        Self {
            rows: BTreeMap::new(),
            by_name: HashMap::new(),
            ended: BTreeSet::new(),
            max_rows: max_rows.max(1),
            last_sequence: 0,
            changed: BTreeSet::new(),
            removed: BTreeSet::new(),
            reset: false,
        }
    }

    /// The sequence of the last message.
    #[must_use]
    pub fn last_sequence(&self) -> u64 {
        self.last_sequence
    }

    /// Applies the next message of `JOB_STATUS`. One that was applied before, or that is no status
    /// event, changes nothing.
    pub fn apply(&mut self, sequence: u64, payload: &[u8]) {
        if sequence <= self.last_sequence {
            return;
        }
        self.last_sequence = sequence;
        let Some(brief) = Brief::parse(payload) else { return };
        let key = (brief.template.clone(), brief.name.clone());
        let known = self.by_name.get(&key).and_then(|id| self.rows.get(id));
        let row = match known {
            Some(row) if row.uid == brief.uid() => brief.next(sequence, row.clone()),
            known => {
                if let Some(id) = known.map(|row| row.id) {
                    self.remove(id);
                }
                brief.first(sequence)
            }
        };
        self.insert(key, row);
    }

    /// Removes every row: the stream was recreated.
    pub fn clear(&mut self) {
        *self = Self { reset: true, ..Self::new(self.max_rows) };
    }

    /// The changes since the last call, at most `max` of them; `None` if there are none.
    pub fn take_delta(&mut self, max: usize) -> Option<Delta> {
        if std::mem::take(&mut self.reset) {
            self.changed.clear();
            self.removed.clear();
            return Some(Delta::Reset);
        }
        let removed: Vec<u64> = take_first(&mut self.removed, max);
        let changed = take_first(&mut self.changed, max.saturating_sub(removed.len()));
        let rows: Vec<Row> = changed.iter().filter_map(|id| self.rows.get(id).cloned()).collect();
        (!rows.is_empty() || !removed.is_empty()).then_some(Delta::Changes { rows, removed })
    }

    /// At most `max` rows before the row `before`, or the newest ones.
    #[must_use]
    pub fn page(&self, before: Option<u64>, max: usize) -> Page {
        let older = self.rows.range(..before.unwrap_or(u64::MAX)).rev();
        let rows: Vec<Row> = older.take(max).map(|(_, row)| row.clone()).collect();
        let next = rows.last().map(|row| row.id).filter(|id| self.rows.range(..id).next().is_some());
        Page { rows, next }
    }

    fn insert(&mut self, key: (TemplateName, JobName), row: Row) {
        let id = row.id;
        if row.state.is_final() {
            self.ended.insert(id);
        } else {
            self.ended.remove(&id);
        }
        self.by_name.insert(key, id);
        self.rows.insert(id, row);
        self.changed.insert(id);
        while self.rows.len() > self.max_rows {
            let oldest = self.ended.first().or_else(|| self.rows.keys().next()).copied();
            let Some(oldest) = oldest else { break };
            self.remove(oldest);
        }
    }

    fn remove(&mut self, id: u64) {
        let Some(row) = self.rows.remove(&id) else { return };
        let key = (row.template, row.name);
        if self.by_name.get(&key) == Some(&id) {
            self.by_name.remove(&key);
        }
        self.ended.remove(&id);
        self.changed.remove(&id);
        self.removed.insert(id);
        // Too many to tell: the viewers read the pages again.
        if self.removed.len() > self.max_rows {
            self.removed.clear();
            self.reset = true;
        }
    }
}

fn take_first(set: &mut BTreeSet<u64>, max: usize) -> Vec<u64> {
    std::iter::from_fn(|| set.pop_first()).take(max).collect()
}

#[cfg(test)]
mod tests;
