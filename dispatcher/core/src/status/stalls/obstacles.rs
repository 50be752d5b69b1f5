//! What keeps one object, a pod or the Job, from running. It holds names of reasons, no messages.

use std::cmp::Reverse;

/// The maximum number of reasons of Warnings that one object keeps: the newest ones.
const MAX_WARNINGS: usize = 4;

/// What keeps an object from running.
#[derive(Debug, Default)]
pub(super) struct Obstacles {
    /// The reason of the object's own status. It hides all others: it is the most precise.
    pub(super) status: Option<String>,
    /// The step that the start of a pod has reached. Every other reason hides it.
    pub(super) step: Option<String>,
    /// The Warnings since `progress`: the last time of each reason, newest first.
    warnings: Vec<(i64, String)>,
    /// When the object last made progress.
    progress: i64,
}

impl Obstacles {
    /// Records a Warning, unless the object has made progress since. The order does not matter.
    pub(super) fn warn(&mut self, at: i64, reason: String) {
        if at < self.progress {
            return;
        }
        match self.warnings.iter_mut().find(|(_, known)| *known == reason) {
            Some(known) => known.0 = known.0.max(at),
            None => self.warnings.push((at, reason)),
        }
        self.warnings.sort_by(|a, b| (Reverse(a.0), &a.1).cmp(&(Reverse(b.0), &b.1)));
        self.warnings.truncate(MAX_WARNINGS);
    }

    /// Records progress, which drops older Warnings.
    pub(super) fn advance(&mut self, progress: i64) {
        self.progress = self.progress.max(progress);
        self.warnings.retain(|(at, _)| *at >= self.progress);
    }

    /// Whether a Warning of this reason has occurred at this time or later.
    pub(super) fn has_warning_since(&self, reason: &str, time: i64) -> bool {
        self.warnings.iter().any(|(at, known)| known == reason && *at >= time)
    }

    /// The reasons that no other one hides, the newest first.
    pub(super) fn current(&self) -> impl Iterator<Item = &str> {
        let (status, warnings) = (self.status.as_deref(), &self.warnings);
        let warned = if status.is_none() { warnings.as_slice() } else { &[] };
        let step = self.step.as_deref().filter(|_| status.is_none() && warnings.is_empty());
        status.into_iter().chain(warned.iter().map(|(_, reason)| reason.as_str())).chain(step)
    }

    /// Every reason.
    pub(super) fn all(&self) -> impl Iterator<Item = &str> {
        let warned = self.warnings.iter().map(|(_, reason)| reason.as_str());
        self.status.as_deref().into_iter().chain(warned).chain(self.step.as_deref())
    }
}
