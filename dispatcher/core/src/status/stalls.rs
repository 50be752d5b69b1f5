//! Why no pod of a Job runs, and when that is worth a word. Pure.
//!
//! A stall is told once until a pod of the Job has run. What often settles itself within moments (a full cluster, a quota,
//! a volume that is still to be attached) has to last before it is told.

use std::{collections::BTreeSet, time::Duration};

use crate::contract::event::Stall;

/// How long that has to last which may settle itself.
const LASTING: Duration = Duration::from_secs(5);

/// Kubernetes' words for what does not settle itself: somebody has to do something.
const AT_ONCE: [&str; 12] = [
    "AdmissionDenied",
    "CreateContainerConfigError",
    "CreateContainerError",
    "ErrImageNeverPull",
    "ErrImagePull",
    "FailedCreate",
    "ImageInspectError",
    "ImagePullBackOff",
    "InvalidImageName",
    "PodSecurity",
    "RunContainerError",
    "StartError",
];

/// Who says it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum StallSource {
    /// The pod with this uid.
    Pod(String),
    /// An Event of that time.
    Event(i64),
    /// The Job's own condition.
    Job,
}

#[derive(Debug)]
struct Now {
    stall: Stall,
    from: StallSource,
    token: u64,
    waits: bool,
    due: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Stalls {
    now: Option<Now>,
    published: BTreeSet<String>,
    running: BTreeSet<String>,
    /// When the newest pod was created: an Event from before that is no longer true.
    newest: i64,
    token: u64,
}

impl Stalls {
    pub fn waiting(&mut self, pod: String, created: i64, stall: Option<Stall>) {
        self.saw(created);
        let from = StallSource::Pod(pod);
        match stall {
            Some(stall) => self.set(stall, from),
            None => self.clear(&from),
        }
    }

    pub fn running(&mut self, pod: String, created: i64) {
        self.saw(created);
        self.clear(&StallSource::Pod(pod.clone()));
        if self.now.as_ref().is_some_and(|now| !matches!(now.from, StallSource::Pod(_))) {
            self.now = None;
        }
        self.published.clear();
        self.running.insert(pod);
    }

    pub fn ended(&mut self, pod: &str, created: i64, ran: bool) {
        self.saw(created);
        self.running.remove(pod);
        // Of a pod that never ran the stall stays known: it is why the Job came to nothing.
        if ran {
            self.clear(&StallSource::Pod(pod.to_owned()));
            self.published.clear();
        }
    }

    pub fn refused(&mut self, at: i64, stall: Stall) {
        if self.running.is_empty() && at >= self.newest {
            self.set(stall, StallSource::Event(at));
        }
    }

    /// What the Job's own condition says now.
    pub fn suspended(&mut self, stall: Option<Stall>) {
        match stall {
            Some(stall) => self.set(stall, StallSource::Job),
            None => self.clear(&StallSource::Job),
        }
    }

    pub fn forget_running(&mut self) {
        self.running.clear();
    }

    pub fn forget_told(&mut self) {
        self.published.clear();
    }

    /// What is to be said now.
    pub fn next(&self) -> Option<Stall> {
        let now = self.now.as_ref().filter(|now| now.due && self.running.is_empty())?;
        (!self.published.contains(family(&now.stall.reason))).then(|| now.stall.clone())
    }

    pub fn told(&mut self, stall: &Stall) {
        self.published.insert(family(&stall.reason).to_owned());
    }

    /// What has to last before it is told: a token, and how long. Given once.
    pub fn wait(&mut self) -> Option<(u64, Duration)> {
        let now = self.now.as_mut().filter(|now| !now.due && !now.waits)?;
        now.waits = true;
        Some((now.token, LASTING))
    }

    pub fn lasted(&mut self, token: u64) {
        if let Some(now) = self.now.as_mut().filter(|now| now.token == token) {
            now.due = true;
        }
    }

    /// What keeps the Job's pods from running now, if it has lasted.
    pub fn lasting(&self) -> Option<Stall> {
        self.now.as_ref().filter(|now| now.due && self.running.is_empty()).map(|now| now.stall.clone())
    }

    /// The Job has a pod that was created then.
    fn saw(&mut self, created: i64) {
        self.newest = self.newest.max(created);
        if self.now.as_ref().is_some_and(|now| matches!(now.from, StallSource::Event(at) if at < self.newest))
        {
            self.now = None;
        }
    }

    fn set(&mut self, stall: Stall, from: StallSource) {
        if let Some(now) = self.now.as_mut().filter(|now| family(&now.stall.reason) == family(&stall.reason))
        {
            // The same again: it has lasted since then.
            now.stall = stall;
            now.from = from;
            return;
        }
        self.token += 1;
        let due = AT_ONCE.contains(&stall.reason.as_str());
        self.now = Some(Now { stall, from, token: self.token, waits: false, due });
    }

    fn clear(&mut self, from: &StallSource) {
        if self.now.as_ref().is_some_and(|now| now.from == *from) {
            self.now = None;
        }
    }
}

/// The kubelet says these in turn, for hours.
fn family(reason: &str) -> &str {
    if reason == "ImagePullBackOff" { "ErrImagePull" } else { reason }
}

#[cfg(test)]
mod tests;
