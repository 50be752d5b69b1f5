//! One Job name's way to its status subject: what is known to be said, the states that wait, one thing at a time.
//!
//! Pure: the writer does what [`Lane::next`] tells and reports back. A lane lives while there is something to say.

mod pods;

use std::collections::VecDeque;

use super::{
    signs::{End, Signs, Telling, Timer},
    store::Known,
};
use crate::{
    contract::{
        event::EventType,
        job::{JobState, Presence},
        names::RequestId,
    },
    status::phase::{self, Source, Step},
};

/// States of a lane that wait, with the one at work; past that the newest takes the place of the last.
const WAITING: usize = 16;
/// The same where all lanes together hold very many.
const CROWDED: usize = 2;
/// How many that is. A stream that takes nothing for long costs no more memory than this, and [`CROWDED`] states of each Job.
pub(super) const MANY: usize = 8192;

/// See the module.
#[derive(Debug)]
pub(super) struct Lane<W> {
    known: Known,
    waiting: VecDeque<(JobState, Source)>,
    /// Jobs that were created and not spoken of, since an earlier one of the name is not closed. The watch brings them too, unless
    /// they go while it is down.
    created: VecDeque<JobState>,
    busy: bool,
    waiters: Vec<(String, W)>,
    /// What pods and Events tell, by the Job's uid.
    signs: Vec<(String, Signs)>,
    /// The Job that was spoken of last, as it was then: an event of a pod goes with it.
    spoken: Option<JobState>,
    telling: Option<Telling>,
}

/// How a piece of work ended.
#[derive(Debug)]
pub(super) enum Done {
    /// The event is stored; this is known of the subject now.
    Said(Known),
    /// The last message was read; this is known of the subject now.
    Known(Known),
    /// The Job at the head is really gone, or not.
    Verified(Gone),
    /// TTL and mark are on the Job.
    Settled,
    /// Another replica reports now: it is no longer this one's to say.
    GivenUp,
}

/// Whether a Job is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gone {
    /// It is there.
    No,
    /// It is gone.
    Deleted,
    /// It is gone, and was to be cancelled.
    Cancelled,
}

/// How something ended that was done beside, for the Job with that uid.
#[derive(Debug)]
pub(super) enum Beside {
    /// The tail of the log of the pod with this uid is there, or is not to be had.
    Log(String, Option<String>),
    /// A wait is over.
    Waited(Timer),
}

impl<W> Lane<W> {
    /// A lane of a subject of which `known` is known. Knowing wrongly costs one refused publish: the fence holds.
    pub(super) fn new(known: Known) -> Self {
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
    pub(super) fn learn(&mut self, known: Known) {
        if !self.busy {
            if known.sequence < self.known.sequence {
                self.signs.iter_mut().for_each(|(_, signs)| signs.forget_told());
            }
            self.known = known;
        }
    }

    /// How many states wait, with the one at work.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len() + self.created.len()
    }

    /// The Job of this request of which something is to be said, as it was when it was there.
    pub(super) fn job_of(&self, request_id: &RequestId) -> Option<JobState> {
        let waiting = self.waiting.iter().map(|(state, _)| state);
        let state = waiting.chain(&self.created).find(|state| state.request_id == *request_id)?;
        Some(state.clone().with_presence(Presence::Present))
    }

    /// A newer state of the Job.
    pub(super) fn offer(&mut self, state: JobState, source: Source) {
        self.merge(&state.uid, WAITING);
        self.waiting.push_back((state, source));
    }

    /// The same where all lanes together hold very many states.
    pub(super) fn offer_in_a_crowd(&mut self, state: JobState, source: Source) {
        self.merge(&state.uid, CROWDED);
        self.waiting.push_back((state, source));
    }

    /// Makes room for a newer state of that Job at the expense of the last ones; never of the one at work, nor of what a create
    /// brought, which outlives this replica's time as the one that reports.
    fn merge(&mut self, uid: &str, most: usize) {
        let goes = |(last, source): &(JobState, Source)| {
            last.uid == uid && !last.settled && *source == Source::Watch
        };
        while self.waiting.len() >= most && self.waiting.back().is_some_and(goes) {
            self.waiting.pop_back();
        }
    }

    /// Somebody who waits for the first event of the Job `uid`.
    pub(super) fn wait(&mut self, uid: String, waiter: W) {
        self.waiters.push((uid, waiter));
    }

    /// The waiters whose Job has been spoken of.
    pub(super) fn served(&mut self) -> Vec<W> {
        let said = self.known.said.as_ref().map(|said| said.uid.clone());
        let (served, rest) =
            std::mem::take(&mut self.waiters).into_iter().partition(|(uid, _)| Some(uid) == said.as_ref());
        self.waiters = rest;
        let served: Vec<(String, W)> = served;
        served.into_iter().map(|(_, waiter)| waiter).collect()
    }

    /// Whether this lane's Job is the one with this uid.
    pub(super) fn is_of(&self, uid: &str) -> bool {
        self.known.said.as_ref().is_some_and(|said| said.uid == uid)
            || self.waiting.iter().any(|(state, _)| state.uid == uid)
    }

    /// Who brought what is next, or at work; what pods tell is the watches'.
    pub(super) fn source(&self) -> Option<Source> {
        let state = self.waiting.front().map(|(_, source)| *source);
        if self.telling.is_some() { Some(Source::Watch) } else { state }
    }

    /// Another replica reports from now on: what the watches brought is its to say. What is at work ends by itself
    /// ([`Done::GivenUp`]).
    pub(super) fn hand_over(&mut self) {
        let mut at_work = self.busy && self.telling.is_none();
        self.waiting.retain(|(_, source)| std::mem::take(&mut at_work) || *source == Source::Create);
        self.signs.clear();
        self.spoken = None;
    }

    /// The next piece of work and the state it concerns; `None` while one is under way or nothing is left. An outcome
    /// waits until the pods are listed for the first time.
    pub(super) fn next(&mut self, pods_listed: bool) -> Option<(Step, JobState, Known)> {
        if self.busy {
            return None;
        }
        loop {
            self.created_again();
            let step = match self.waiting.front() {
                None => None,
                Some((state, source)) => match phase::next(self.known.said.as_ref(), state, *source) {
                    // What the watch brought behind it closes the earlier Job. Where another replica reports, only the
                    // stream tells when.
                    Some(Step::AwaitEarlier) if self.waiting.len() > 1 => {
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
            if let (Some(Step::Say(EventType::Outcome, _)), Some((state, _))) = (&step, self.waiting.front())
            {
                end = if state.presence == Presence::Present { End::Final } else { End::Gone };
                let state = state.clone();
                self.remember(state);
            }
            if let Some(telling) = self.telling(end) {
                self.telling = Some(telling.clone());
                self.busy = true;
                return Some((Step::Tell(telling), self.spoken.clone()?, self.known.clone()));
            }
            let (state, _) = self.waiting.front()?.clone();
            let step = match step? {
                Step::Say(EventType::Outcome, Some(outcome)) => {
                    Step::Say(EventType::Outcome, Some(self.explained(outcome, &state, pods_listed)?))
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
        let step = phase::next(self.known.said.as_ref(), state, Source::Create);
        if step != Some(Step::AwaitEarlier) || self.waiting.is_empty() {
            let created = self.created.pop_front();
            created.into_iter().for_each(|state| self.waiting.push_front((state, Source::Create)));
        }
    }

    /// The piece of work under way has ended.
    pub(super) fn done(&mut self, done: Done) {
        self.busy = false;
        let telling = self.telling.take();
        match done {
            Done::Said(known) => {
                if let (Some(telling), Some(spoken)) = (telling, &self.spoken) {
                    let signs = self.signs.iter_mut().find(|(uid, _)| *uid == spoken.uid);
                    signs.into_iter().for_each(|(_, signs)| signs.told(&telling));
                }
                self.learned(known);
            }
            Done::Known(known) => self.learned(known),
            Done::Settled => {
                if let Some((state, _)) = self.waiting.front_mut() {
                    state.settled = true;
                }
            }
            Done::Verified(gone @ (Gone::Deleted | Gone::Cancelled)) => {
                if let Some((state, _)) = self.waiting.front_mut() {
                    state.cancelled = gone == Gone::Cancelled;
                    state.presence = match state.presence {
                        Presence::DeletedUnverified => Presence::Deleted,
                        Presence::MissingUnverified => Presence::Missing,
                        other => other,
                    };
                }
            }
            // A pod's event is at no state's expense.
            Done::GivenUp if telling.is_some() => {}
            Done::Verified(Gone::No) | Done::GivenUp => {
                self.waiting.pop_front();
            }
        }
    }

    fn learned(&mut self, known: Known) {
        if let Some(said) = known.said.as_ref().filter(|said| said.is_final()) {
            self.signs.retain(|(uid, _)| *uid != said.uid);
            self.spoken = None;
        }
        self.known = known;
    }

    /// Whether the lane can go: nothing to do, nobody waits, and nothing is to be expected of the Job. Where another
    /// replica reports, nothing is.
    pub(super) fn is_over(&self, reports: bool) -> bool {
        let nothing_to_come = !reports || self.known.said.as_ref().is_none_or(phase::Said::is_final);
        !self.busy && self.waiting() == 0 && self.waiters.is_empty() && nothing_to_come
    }

    /// Drops waiters that no longer wait.
    pub(super) fn forget(&mut self, gone: impl Fn(&W) -> bool) {
        self.waiters.retain(|(_, waiter)| !gone(waiter));
    }
}

#[cfg(test)]
mod tests;
