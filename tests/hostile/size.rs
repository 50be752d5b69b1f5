//! The size of a run.

use std::time::Duration;

use dispatcher_tests::attacks::Attack;
use serde::Serialize;

/// How much load the suite makes.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Size {
    /// Requests of the innocent tenant in a phase (`HOSTILE_REQUESTS`).
    pub(crate) requests: usize,
    /// Messages of a flood (`HOSTILE_FLOOD`).
    pub(crate) flood: usize,
    /// Pairs of a quiet and a hostile phase (`HOSTILE_ROUNDS`); at least one per flood.
    pub(crate) rounds: usize,
    /// Dead letters before the restart (`HOSTILE_DEAD_LETTERS`).
    pub(crate) dead_letters: usize,
    /// Good requests, and as many bad ones, in the queue at the restart (`HOSTILE_QUEUED`).
    pub(crate) queued: usize,
}

impl Size {
    /// The pace of the innocent tenant.
    pub(crate) const INTERVAL: Duration = Duration::from_millis(40);

    pub(crate) fn from_env() -> Self {
        let number = |name: &str, default: usize| match std::env::var(name) {
            Ok(text) if !text.is_empty() => {
                text.parse().unwrap_or_else(|_| panic!("{name}={text}: expected a number"))
            }
            _ => default,
        };
        Self {
            requests: number("HOSTILE_REQUESTS", 50),
            flood: number("HOSTILE_FLOOD", 500),
            rounds: number("HOSTILE_ROUNDS", 1),
            dead_letters: number("HOSTILE_DEAD_LETTERS", 1000),
            queued: number("HOSTILE_QUEUED", 100),
        }
    }

    /// The flood that `HOSTILE_FLOOD_KIND` names, or all of them.
    pub(crate) fn floods() -> Vec<Attack> {
        let kind = std::env::var("HOSTILE_FLOOD_KIND").unwrap_or_default();
        let name = |flood: &Attack| serde_json::to_value(flood).unwrap();
        let is_chosen = |flood: &Attack| kind.is_empty() || name(flood) == kind.as_str();
        let floods: Vec<_> = Attack::FLOODS.into_iter().filter(is_chosen).collect();
        let names = Attack::FLOODS.each_ref().map(name);
        assert!(!floods.is_empty(), "HOSTILE_FLOOD_KIND={kind}: expected one of {names:?}");
        floods
    }

    /// The pause between two messages of a flood, such that the flood lasts as long as the phase.
    pub(crate) fn flood_interval(self) -> Duration {
        let requests = u32::try_from(self.requests).unwrap();
        Self::INTERVAL * requests / u32::try_from(self.flood.max(1)).unwrap()
    }
}
