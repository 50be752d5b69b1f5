//! What pods and Events tell of a lane's Jobs: events of their own, and what the outcome says of them.

use crate::status::subject_queue::{EffectResult, SubjectQueue};
use crate::{
    contract::{
        event::Outcome,
        job::{JobState, Presence},
    },
    status::pod_tracker::{Effect, End, PendingEvent, PodState, PodTracker},
};

/// Jobs of one name of which signs are kept: the one at work, and one that took its name meanwhile.
const JOBS: usize = 4;

impl<W> SubjectQueue<W> {
    /// What a pod or an Event tells of the Job `uid`.
    pub fn sign(&mut self, uid: String, tells: PodState) {
        if self.known.last.as_ref().is_some_and(|said| said.uid == uid && said.is_final()) {
            return;
        }
        if let Some(signs) = self.signs_of(&uid) {
            signs.take(tells);
        }
    }

    /// The pods are listed anew.
    pub fn pods_listing(&mut self) {
        self.signs.iter_mut().for_each(|(_, signs)| signs.forget_running());
    }

    fn signs_of(&mut self, uid: &str) -> Option<&mut PodTracker> {
        if !self.signs.iter().any(|(of, _)| of == uid) {
            if self.signs.len() >= JOBS {
                self.signs.remove(0);
            }
            self.signs.push((uid.to_owned(), PodTracker::default()));
        }
        self.signs.iter_mut().find(|(of, _)| of == uid).map(|(_, signs)| signs)
    }

    /// What is to be told of the Job that was spoken of last.
    pub fn telling(&mut self, end: End) -> Option<PendingEvent> {
        let (said, spoken) = (self.known.last.as_ref()?, self.spoken.as_ref()?);
        if said.is_final() || said.uid != spoken.uid {
            return None;
        }
        let (uid, suspended) = (spoken.uid.clone(), spoken.suspension());
        if suspended.is_none() && !self.signs.iter().any(|(of, _)| *of == uid) {
            return None;
        }
        let signs = self.signs_of(&uid)?;
        signs.suspended(suspended);
        signs.next(end)
    }

    /// The outcome with what is known of the pods; `None` while it is to wait for more.
    pub fn explained(
        &mut self,
        mut outcome: Box<Outcome>,
        state: &JobState,
        pods_listed: bool,
    ) -> Option<Box<Outcome>> {
        let pods = outcome.pods_ended();
        // The pods of a Job that is gone go after it: there is nothing to wait for.
        let there = state.presence == Presence::Present;
        if there && !pods_listed {
            return None;
        }
        let signs = self.signs_of(&state.uid)?;
        if there && signs.holds(pods) {
            return None;
        }
        signs.explain(&mut outcome, pods);
        Some(outcome)
    }

    /// Keeps the state of the Job that is spoken of.
    pub fn remember(&mut self, state: JobState) {
        let Some(said) = self.known.last.as_ref().filter(|said| said.uid == state.uid && !said.is_final())
        else {
            return;
        };
        let newer = self.spoken.as_ref().is_none_or(|before| {
            before.uid != state.uid || before.resource_version <= state.resource_version
        });
        if newer && state.resource_version <= said.resource_version {
            self.spoken = Some(state);
        }
    }

    /// What is to be fetched or waited for beside, with the Job's uid: only of a Job that was spoken of.
    pub fn asides(&mut self) -> Option<(String, Vec<Effect>)> {
        let said = self.known.last.as_ref().filter(|said| !said.is_final())?;
        let (uid, signs) = self.signs.iter_mut().find(|(uid, _)| *uid == said.uid)?;
        let asides = signs.asides();
        (!asides.is_empty()).then(|| (uid.clone(), asides))
    }

    /// Something beside has ended.
    pub fn beside(&mut self, uid: &str, beside: EffectResult) {
        let Some((_, signs)) = self.signs.iter_mut().find(|(of, _)| of == uid) else { return };
        match beside {
            EffectResult::Log(pod, tail) => signs.log(&pod, tail),
            EffectResult::Waited(timer) => signs.waited(&timer),
        }
    }
}
