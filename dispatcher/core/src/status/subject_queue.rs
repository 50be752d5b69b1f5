//! One Job name's way to its status subject: what is known to be said, the states that wait, one thing at a time.
//!
//! Pure: the writer does what [`SubjectQueue::next`] tells and reports back. A lane lives while there is something to say.

mod pods;

use std::collections::VecDeque;

use crate::status::{
    SubjectState,
    pod_tracker::{End, PendingEvent, PodTracker, Timer},
};
use crate::{
    contract::{
        event::EventType,
        job::{JobState, Presence},
        names::RequestId,
    },
    status::reconcile::{self, Action, Source},
};

/// States of a lane that wait, with the one at work; past that the newest takes the place of the last.
const WAITING: usize = 16;
/// The same where all lanes together hold very many.
const COALESCED_DEPTH: usize = 2;
/// How many that is. A stream that takes nothing for long costs no more memory than this, and [`COALESCED_DEPTH`] states of each Job.
pub const HIGH_WATERMARK: usize = 8192;

/// See the module.
#[derive(Debug)]
pub struct SubjectQueue<W> {
    known: SubjectState,
    waiting: VecDeque<(JobState, Source)>,
    /// Jobs that were created and not spoken of, since an earlier one of the name is not closed. The watch brings them too, unless
    /// they go while it is down.
    created: VecDeque<JobState>,
    busy: bool,
    waiters: Vec<(String, W)>,
    /// What pods and Events tell, by the Job's uid.
    signs: Vec<(String, PodTracker)>,
    /// The Job that was spoken of last, as it was then: an event of a pod goes with it.
    spoken: Option<JobState>,
    telling: Option<PendingEvent>,
}

/// How a piece of work ended.
#[derive(Debug)]
pub enum ActionResult {
    /// The event is stored; this is known of the subject now.
    Published(SubjectState),
    /// The last message was read; this is known of the subject now.
    Read(SubjectState),
    /// The Job at the head is really gone, or not.
    Verified(DeletionCheck),
    /// TTL and mark are on the Job.
    Retired,
    /// Another replica reports now: it is no longer this one's to say.
    Abandoned,
}

/// Whether a Job is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeletionCheck {
    /// It is there.
    No,
    /// It is gone.
    Deleted,
    /// It is gone, and was to be cancelled.
    Cancelled,
}

/// How something ended that was done beside, for the Job with that uid.
#[derive(Debug)]
pub enum EffectResult {
    /// The tail of the log of the pod with this uid is there, or is not to be had.
    Log(String, Option<String>),
    /// A wait is over.
    Waited(Timer),
}

impl<W> SubjectQueue<W> {
    /// A lane of a subject of which `known` is known. Knowing wrongly costs one refused publish: the fence holds.
    pub fn new(known: SubjectState) -> Self {
        Self {
            known,
            waiting: VecDeque::new(),
            created: VecDeque::new(),
            busy: false,
            waiters: Vec::new(),
            signs: Vec::new(),
            spoken: None,
            telling: None,
        }
    }

    /// What a scan has read of the subject. It may be older than what is known here: that costs a refused publish. Or the
    /// stream may have lost what is known here: then only the scan is right.
    pub fn learn(&mut self, known: SubjectState) {
        if !self.busy {
            if known.sequence < self.known.sequence {
                self.signs.iter_mut().for_each(|(_, signs)| signs.forget_told());
            }
            self.known = known;
        }
    }

    /// How many states wait, with the one at work.
    pub fn waiting(&self) -> usize {
        self.waiting.len() + self.created.len()
    }

    /// The Job of this request of which something is to be said, as it was when it was there.
    pub fn pending_job(&self, request_id: &RequestId) -> Option<JobState> {
        let waiting = self.waiting.iter().map(|(state, _)| state);
        let state = waiting.chain(&self.created).find(|state| state.request_id == *request_id)?;
        Some(state.clone().with_presence(Presence::Present))
    }

    /// A newer state of the Job.
    pub fn offer(&mut self, state: JobState, source: Source) {
        self.merge(&state.uid, WAITING);
        self.waiting.push_back((state, source));
    }

    /// The same where all lanes together hold very many states.
    pub fn offer_in_a_crowd(&mut self, state: JobState, source: Source) {
        self.merge(&state.uid, COALESCED_DEPTH);
        self.waiting.push_back((state, source));
    }

    /// Makes room for a newer state of that Job at the expense of the last ones; never of the one at work, nor of what a create
    /// brought, which outlives this replica's time as the one that reports.
    fn merge(&mut self, uid: &str, most: usize) {
        let goes = |(last, source): &(JobState, Source)| {
            last.uid == uid && !last.retired && *source == Source::Watch
        };
        while self.waiting.len() >= most && self.waiting.back().is_some_and(goes) {
            self.waiting.pop_back();
        }
    }

    /// Somebody who waits for the first event of the Job `uid`.
    pub fn wait(&mut self, uid: String, waiter: W) {
        self.waiters.push((uid, waiter));
    }

    /// The waiters whose Job has been spoken of.
    pub fn served(&mut self) -> Vec<W> {
        let said = self.known.last.as_ref().map(|said| said.uid.clone());
        let (served, rest) =
            std::mem::take(&mut self.waiters).into_iter().partition(|(uid, _)| Some(uid) == said.as_ref());
        self.waiters = rest;
        let served: Vec<(String, W)> = served;
        served.into_iter().map(|(_, waiter)| waiter).collect()
    }

    /// Whether this lane's Job is the one with this uid.
    pub fn is_of(&self, uid: &str) -> bool {
        self.known.last.as_ref().is_some_and(|said| said.uid == uid)
            || self.waiting.iter().any(|(state, _)| state.uid == uid)
    }

    /// Who brought what is next, or at work; what pods tell is the watches'.
    pub fn source(&self) -> Option<Source> {
        let state = self.waiting.front().map(|(_, source)| *source);
        if self.telling.is_some() { Some(Source::Watch) } else { state }
    }

    /// Another replica reports from now on: what the watches brought is its to say. What is at work ends by itself
    /// ([`ActionResult::Abandoned`]).
    pub fn hand_over(&mut self) {
        let mut at_work = self.busy && self.telling.is_none();
        self.waiting.retain(|(_, source)| std::mem::take(&mut at_work) || *source == Source::Create);
        self.signs.clear();
        self.spoken = None;
    }

    /// The next piece of work and the state it concerns; `None` while one is under way or nothing is left. An outcome
    /// waits until the pods are listed for the first time.
    pub fn next(&mut self, pods_listed: bool) -> Option<(Action, JobState, SubjectState)> {
        if self.busy {
            return None;
        }
        loop {
            self.created_again();
            let step = match self.waiting.front() {
                None => None,
                Some((state, source)) => match reconcile::next(self.known.last.as_ref(), state, *source) {
                    // What the watch brought behind it closes the earlier Job. Where another replica reports, only the
                    // stream tells when.
                    Some(Action::AwaitPrevious) if self.waiting.len() > 1 => {
                        let created = self.waiting.pop_front();
                        self.created.extend(created.map(|(state, _)| state));
                        continue;
                    }
                    None => {
                        let done = self.waiting.pop_front();
                        done.into_iter().for_each(|(state, _)| self.remember(state));
                        continue;
                    }
                    step => step,
                },
            };
            let mut end = End::Not;
            if let (Some(Action::Publish(EventType::Outcome, _)), Some((state, _))) =
                (&step, self.waiting.front())
            {
                end = if state.presence == Presence::Present { End::Final } else { End::DeletionCheck };
                let state = state.clone();
                self.remember(state);
            }
            if let Some(telling) = self.telling(end) {
                self.telling = Some(telling.clone());
                self.busy = true;
                return Some((Action::PublishPending(telling), self.spoken.clone()?, self.known.clone()));
            }
            let (state, _) = self.waiting.front()?.clone();
            let step = match step? {
                Action::Publish(EventType::Outcome, Some(outcome)) => {
                    Action::Publish(EventType::Outcome, Some(self.explained(outcome, &state, pods_listed)?))
                }
                step => step,
            };
            self.busy = true;
            return Some((step, state, self.known.clone()));
        }
    }

    /// Puts a created Job in front again, once the earlier one of its name is closed or nothing else is there to do.
    fn created_again(&mut self) {
        let Some(state) = self.created.front() else { return };
        let step = reconcile::next(self.known.last.as_ref(), state, Source::Create);
        if step != Some(Action::AwaitPrevious) || self.waiting.is_empty() {
            let created = self.created.pop_front();
            created.into_iter().for_each(|state| self.waiting.push_front((state, Source::Create)));
        }
    }

    /// The piece of work under way has ended.
    pub fn done(&mut self, done: ActionResult) {
        self.busy = false;
        let telling = self.telling.take();
        match done {
            ActionResult::Published(known) => {
                if let (Some(telling), Some(spoken)) = (telling, &self.spoken) {
                    let signs = self.signs.iter_mut().find(|(uid, _)| *uid == spoken.uid);
                    signs.into_iter().for_each(|(_, signs)| signs.told(&telling));
                }
                self.learned(known);
            }
            ActionResult::Read(known) => self.learned(known),
            ActionResult::Retired => {
                if let Some((state, _)) = self.waiting.front_mut() {
                    state.retired = true;
                }
            }
            ActionResult::Verified(gone @ (DeletionCheck::Deleted | DeletionCheck::Cancelled)) => {
                if let Some((state, _)) = self.waiting.front_mut() {
                    state.cancelled = gone == DeletionCheck::Cancelled;
                    state.presence = match state.presence {
                        Presence::DeletedUnverified => Presence::Deleted,
                        Presence::MissingUnverified => Presence::Missing,
                        other => other,
                    };
                }
            }
            // A pod's event is at no state's expense.
            ActionResult::Abandoned if telling.is_some() => {}
            ActionResult::Verified(DeletionCheck::No) | ActionResult::Abandoned => {
                self.waiting.pop_front();
            }
        }
    }

    fn learned(&mut self, known: SubjectState) {
        if let Some(said) = known.last.as_ref().filter(|said| said.is_final()) {
            self.signs.retain(|(uid, _)| *uid != said.uid);
            self.spoken = None;
        }
        self.known = known;
    }

    /// Whether the lane can go: nothing to do, nobody waits, and nothing is to be expected of the Job. Where another
    /// replica reports, nothing is.
    pub fn is_over(&self, reports: bool) -> bool {
        let nothing_to_come = !reports || self.known.last.as_ref().is_none_or(reconcile::LastEvent::is_final);
        !self.busy && self.waiting() == 0 && self.waiters.is_empty() && nothing_to_come
    }

    /// Drops waiters that no longer wait.
    pub fn forget(&mut self, gone: impl Fn(&W) -> bool) {
        self.waiters.retain(|(_, waiter)| !gone(waiter));
    }
}

#[cfg(test)]
mod tests;
