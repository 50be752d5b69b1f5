//! What works and what does not: each room tells its own state, `/ready` tells all of them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

/// The state of every room, shared.
#[derive(Clone, Default)]
pub struct Health(Arc<Mutex<BTreeMap<String, State>>>);

#[derive(Clone)]
struct State {
    ready: Result<(), String>,
    failures: u64,
}

/// What one room has told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Its name.
    pub name: String,
    /// Whether it works.
    pub ready: bool,
    /// How often it has told that it does not: each time that a try of it failed.
    pub failures: u64,
}

/// The name of one room in [`Health`]; a room that is not ready tells why.
#[derive(Clone)]
pub struct Room {
    health: Health,
    name: String,
}

impl Health {
    /// Registers a room: not ready until it says so.
    pub fn room(&self, name: impl Into<String>) -> Room {
        let name = name.into();
        self.set(&name, Err("starting".to_owned()), 0);
        Room { health: self.clone(), name }
    }

    /// Whether that is news.
    fn set(&self, name: &str, ready: Result<(), String>, failures: u64) -> bool {
        let mut rooms = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match rooms.get_mut(name) {
            Some(state) => {
                let changed = state.ready.is_ok() != ready.is_ok();
                *state = State { ready, failures: state.failures.saturating_add(failures) };
                changed
            }
            None => {
                rooms.insert(name.to_owned(), State { ready, failures });
                true
            }
        }
    }

    /// What every room has told.
    pub fn rooms(&self) -> Vec<Told> {
        let rooms = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let told = |(name, State { ready, failures }): (&String, &State)| Told {
            name: name.clone(),
            ready: ready.is_ok(),
            failures: *failures,
        };
        rooms.iter().map(told).collect()
    }

    /// `room: reason` of each room that is not ready; empty when the service is ready.
    pub fn not_ready(&self) -> Vec<String> {
        let rooms = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        rooms
            .iter()
            .filter_map(|(name, state)| Some(format!("{name}: {}", state.ready.as_ref().err()?)))
            .collect()
    }
}

impl Room {
    /// The room works. Logged when it did not before.
    pub fn ready(&self) {
        if self.health.set(&self.name, Ok(()), 0) {
            tracing::info!(room = self.name, "ready");
        }
    }

    /// The room does not work, and why. Logged when it did before; after that only the reason at `/ready` changes, so
    /// that an outage is a line and not a flood.
    pub fn not_ready(&self, reason: impl Into<String>) {
        let reason = reason.into();
        if self.health.set(&self.name, Err(reason.clone()), 1) {
            tracing::warn!(room = self.name, reason, "not ready");
        }
    }

    /// Something that is tried until it works, or until nobody waits for it any more.
    pub fn trying(&self) -> Trying<'_> {
        Trying { room: self, complains: false }
    }
}

/// One thing that is tried again and again. What it complained of is withdrawn where it is given up, as by a replica that
/// reports no more: nobody would try again, and the room would be not ready for good.
pub struct Trying<'a> {
    room: &'a Room,
    complains: bool,
}

impl Trying<'_> {
    /// It did not work, and is tried again.
    pub fn failed(&mut self, reason: impl Into<String>) {
        self.complains = true;
        self.room.not_ready(reason);
    }

    /// It worked.
    pub fn works(&mut self) {
        self.complains = false;
        self.room.ready();
    }
}

impl Drop for Trying<'_> {
    fn drop(&mut self) {
        if self.complains {
            self.room.ready();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_is_when_every_room_is() {
        let health = Health::default();
        let (a, b) = (health.room("a"), health.room("b"));
        a.ready();
        assert_eq!(health.not_ready(), ["b: starting"]);
        b.ready();
        assert!(health.not_ready().is_empty());
        a.not_ready("no answer");
        assert_eq!(health.not_ready(), ["a: no answer"]);
        a.not_ready("still none");
        let told = |name: &str, ready, failures| Told { name: name.to_owned(), ready, failures };
        assert_eq!(health.rooms(), [told("a", false, 2), told("b", true, 0)]);
    }

    #[test]
    fn what_is_given_up_complains_no_more() {
        let health = Health::default();
        let room = health.room("a");
        let mut trying = room.trying();
        trying.failed("no answer");
        assert_eq!(health.not_ready(), ["a: no answer"]);
        trying.works();
        assert!(health.not_ready().is_empty());
        trying.failed("none again");
        drop(trying);
        assert!(health.not_ready().is_empty());
        // One that never complained says nothing of the others.
        room.not_ready("another's");
        drop(room.trying());
        assert_eq!(health.not_ready(), ["a: another's"]);
    }
}
