//! The gate of a kind: how many requests are pulled, after how those before went. Pure.

use crate::intake::handle::Verdict;

/// Whether the kind can go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gate {
    Open,
    /// Closed: so many tries failed in a row, the requests that were under way together being one, and so many probes since
    /// found no request to try.
    Closed {
        tries: i64,
        empty: u32,
    },
    /// A probe became a Job: so many at a time, one more with each. A quota that is full but for one would else be met by
    /// all at once.
    Opening(usize),
}

/// Probes that find no message before the gate opens again: by then every delayed request was due.
pub(super) const EMPTY_PROBES: u32 = 4;

impl Gate {
    /// After a request, pulled as a probe or among others.
    pub(super) fn after(self, verdict: &Verdict, probe: bool, concurrency: usize) -> Self {
        match (verdict, self) {
            (Verdict::Settled, Self::Closed { .. }) => Self::Opening(2),
            (Verdict::Settled, Self::Opening(most)) if most < concurrency => Self::Opening(most + 1),
            (Verdict::Settled, _) => Self::Open,
            // It says nothing of whether a Job can be created.
            (Verdict::Rejected, gate) => gate,
            (_, Self::Closed { tries, .. }) if probe => {
                Self::Closed { tries: tries.saturating_add(1), empty: 0 }
            }
            // It was under way with the one that closed the gate: what struck them all is one trouble, and may be over.
            (_, Self::Closed { tries, .. }) => Self::Closed { tries, empty: 0 },
            _ => Self::Closed { tries: 1, empty: 0 },
        }
    }

    pub(super) fn after_empty_probe(self) -> Self {
        match self {
            Self::Closed { tries, empty } if empty < EMPTY_PROBES => Self::Closed { tries, empty: empty + 1 },
            _ => Self::Open,
        }
    }

    /// How many requests are pulled at most.
    pub(super) fn most(self, concurrency: usize) -> usize {
        match self {
            Self::Open => concurrency,
            Self::Opening(most) => most.min(concurrency),
            Self::Closed { .. } => 1,
        }
    }

    pub(super) fn is_closed(self) -> bool {
        matches!(self, Self::Closed { .. })
    }
}
