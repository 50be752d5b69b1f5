//! What the pods and the Events of one Job tell: how each pod ended, and why none runs.
//!
//! Pure: [`PodTracker::next`] gives what is to be said, [`PodTracker::asides`] what is to be fetched or waited for meanwhile. Time
//! comes in as the end of a wait, never as a clock.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use crate::contract::{
    event::{Attempt, Outcome, OutcomeResult, Stall},
    names::{JobName, TemplateName},
};
use crate::status::stalls::Stalls;

/// Attempts that are kept for the outcome, and log tails that are held at once; each tail has its own bound.
const KEPT: usize = 16;
/// How long an `ATTEMPT` waits for the tail of its log; after that the outcome brings it.
const LOG_GRACE: Duration = Duration::from_secs(1);
/// How long an outcome waits for pods that are known to have ended and were not seen yet, and for tails of logs.
const OUTCOME_GRACE: Duration = Duration::from_secs(3);

/// What one pod, or one Event, tells of a Job.
#[derive(Debug, Clone, PartialEq)]
pub struct PodObservation {
    /// The Job's template; an Event does not tell it.
    pub template: Option<TemplateName>,
    /// The Job's name.
    pub name: JobName,
    /// The Job's uid.
    pub uid: String,
    /// What it tells.
    pub tells: PodState,
}

/// See [`PodObservation`]. Times are in seconds since 1970, as Kubernetes writes them.
#[derive(Debug, Clone, PartialEq)]
pub enum PodState {
    /// A pod is there and has not run yet.
    Waiting {
        /// Its uid.
        pod: String,
        /// When it was created.
        created: i64,
        /// What keeps it from running, where that is known.
        stall: Option<Stall>,
    },
    /// A pod runs.
    Running {
        /// Its uid.
        pod: String,
        /// When it was created.
        created: i64,
    },
    /// A pod has ended.
    Ended {
        /// Its uid.
        pod: String,
        /// When it was created.
        created: i64,
        /// How it ended.
        attempt: Box<Attempt>,
        /// The container whose log tells of it; `None` where the pod succeeded or none ran.
        log: Option<String>,
    },
    /// Kubernetes says by an Event that a pod cannot be made, or cannot start.
    Refused {
        /// When that was.
        at: i64,
        /// What it says.
        stall: Stall,
    },
}

/// What is to be said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PendingEvent {
    /// An `ATTEMPT`: of the pod with this uid.
    Attempt(String, Box<Attempt>),
    /// A `STALLED`.
    Stall(Stall),
}

/// What is to be done beside: it holds up nothing of the Job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Fetch the tail of a log.
    Log {
        /// The pod's uid.
        pod: String,
        /// The pod's name.
        name: String,
        /// The container.
        container: String,
    },
    /// Wait.
    Wait(Timer, Duration),
}

/// What is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Timer {
    /// An `ATTEMPT` waits no longer for the log of the pod with this uid.
    Log(String),
    /// A stall has lasted.
    Stall(u64),
    /// The outcome waits no longer.
    Outcome,
}

/// Whether a Job has come to its outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It has not.
    Not,
    /// By its condition.
    Final,
    /// It is gone, and nothing is waited for.
    DeletionCheck,
}

#[derive(Debug, PartialEq, Eq)]
enum Log {
    Lookup(String),
    Fetching { late: bool },
    Settled,
}

#[derive(Debug)]
struct Ended {
    attempt: Attempt,
    log: Log,
    told: bool,
}

#[derive(Debug, Default, PartialEq, Eq, Clone, Copy)]
enum Patience {
    #[default]
    Idle,
    Lookup,
    Running,
    Over,
}

/// See the module.
#[derive(Debug, Default)]
pub struct PodTracker {
    attempts: BTreeMap<String, Ended>,
    /// Ended pods that were told of and are not kept.
    cut: HashSet<String>,
    stalls: Stalls,
    patience: Patience,
}

impl PodTracker {
    /// Takes in what a pod or an Event tells.
    pub fn take(&mut self, tells: PodState) {
        match tells {
            PodState::Waiting { pod, created, stall } => self.stalls.waiting(pod, created, stall),
            PodState::Running { pod, created } => self.stalls.running(pod, created),
            PodState::Refused { at, stall } => self.stalls.refused(at, stall),
            PodState::Ended { pod, created, attempt, log } => {
                self.stalls.ended(&pod, created, attempt.exit_code.is_some());
                if !self.cut.contains(&pod) && !self.attempts.contains_key(&pod) {
                    let log = log.map_or(Log::Settled, Log::Lookup);
                    self.attempts.insert(pod, Ended { attempt: *attempt, log, told: false });
                }
            }
        }
    }

    /// The pods are listed anew: which of them run is told again.
    pub fn forget_running(&mut self) {
        self.stalls.forget_running();
    }

    /// The stream has lost messages: what was told may be lost.
    pub fn forget_told(&mut self) {
        self.attempts.values_mut().for_each(|ended| ended.told = false);
        self.stalls.forget_told();
    }

    /// What the Job's own condition says.
    pub fn suspended(&mut self, stall: Option<Stall>) {
        self.stalls.suspended(stall);
    }

    /// What is to be said next of the Job.
    pub fn next(&self, end: End) -> Option<PendingEvent> {
        let hurried = self.patience == Patience::Over || end == End::DeletionCheck;
        let due = |ended: &Ended| {
            !ended.told && (hurried || matches!(ended.log, Log::Settled | Log::Fetching { late: true }))
        };
        if let Some(pod) = self.first(due) {
            let attempt = self.attempts.get(&pod)?.attempt.clone();
            return Some(PendingEvent::Attempt(pod, Box::new(attempt)));
        }
        if end == End::Not { self.stalls.next().map(PendingEvent::Stall) } else { None }
    }

    /// It is said.
    pub fn told(&mut self, telling: &PendingEvent) {
        match telling {
            PendingEvent::Stall(stall) => self.stalls.told(stall),
            PendingEvent::Attempt(pod, _) => {
                if let Some(ended) = self.attempts.get_mut(pod) {
                    ended.told = true;
                }
                while self.attempts.len() > KEPT && self.cut_one() {}
            }
        }
    }

    /// Gives up the attempt that is worth least, once it is told: a successful one before a failed one, an old one before
    /// a new one.
    fn cut_one(&mut self) -> bool {
        let failed = |ended: &Ended| ended.attempt.exit_code != Some(0);
        let least = self
            .attempts
            .iter()
            .min_by(|(_, a), (_, b)| failed(a).cmp(&failed(b)).then_with(|| order(&a.attempt, &b.attempt)))
            .filter(|(_, ended)| ended.told && ended.log == Log::Settled);
        let Some(pod) = least.map(|(pod, _)| pod.clone()) else { return false };
        self.attempts.remove(&pod);
        self.cut.insert(pod)
    }

    /// What is to be fetched or waited for now; each is given once.
    pub fn asides(&mut self) -> Vec<Effect> {
        let mut asides = Vec::new();
        while let Some(pod) = self.first(|ended| matches!(ended.log, Log::Lookup(_))) {
            if self.tails() >= KEPT && !self.drop_tail() {
                break;
            }
            let Some(ended) = self.attempts.get_mut(&pod) else { break };
            if let Log::Lookup(container) = std::mem::replace(&mut ended.log, Log::Fetching { late: false }) {
                asides.push(Effect::Log { pod: pod.clone(), name: ended.attempt.pod.clone(), container });
                asides.push(Effect::Wait(Timer::Log(pod), LOG_GRACE));
            }
        }
        if self.patience == Patience::Lookup {
            self.patience = Patience::Running;
            asides.push(Effect::Wait(Timer::Outcome, OUTCOME_GRACE));
        }
        asides.extend(self.stalls.wait().map(|(token, wait)| Effect::Wait(Timer::Stall(token), wait)));
        asides
    }

    /// The pod that ended first of those that are `such`.
    fn first(&self, such: impl Fn(&Ended) -> bool) -> Option<String> {
        let such = self.attempts.iter().filter(|(_, ended)| such(ended));
        such.min_by(|(_, a), (_, b)| order(&a.attempt, &b.attempt)).map(|(pod, _)| pod.clone())
    }

    /// Tails that are held, or come.
    fn tails(&self) -> usize {
        let held =
            |ended: &&Ended| matches!(ended.log, Log::Fetching { .. }) || ended.attempt.log_tail.is_some();
        self.attempts.values().filter(held).count()
    }

    /// Gives up the oldest tail that was told; whether there was one.
    fn drop_tail(&mut self) -> bool {
        let oldest = self.first(|ended| ended.told && ended.attempt.log_tail.is_some());
        let oldest = oldest.and_then(|pod| self.attempts.get_mut(&pod));
        oldest.is_some_and(|ended| ended.attempt.log_tail.take().is_some())
    }

    /// The tail of a log is there, or there is none to be had.
    pub fn log(&mut self, pod: &str, tail: Option<String>) {
        if let Some(ended) = self.attempts.get_mut(pod) {
            ended.log = Log::Settled;
            ended.attempt.log_tail = tail;
        }
    }

    /// A wait is over.
    pub fn waited(&mut self, timer: &Timer) {
        match timer {
            Timer::Outcome => self.patience = Patience::Over,
            Timer::Stall(token) => self.stalls.lasted(*token),
            Timer::Log(pod) => {
                if let Some(Ended { log: log @ Log::Fetching { .. }, .. }) = self.attempts.get_mut(pod) {
                    *log = Log::Fetching { late: true };
                }
            }
        }
    }

    /// Whether the outcome of a Job of which `pods` have ended is to wait: for pods that were not seen yet, or for logs.
    pub fn holds(&mut self, pods: u32) -> bool {
        let open = self.attempts.values().any(|ended| ended.log != Log::Settled || !ended.told);
        if self.patience == Patience::Over || !open && self.seen() >= pods {
            return false;
        }
        if self.patience == Patience::Idle {
            self.patience = Patience::Lookup;
        }
        true
    }

    /// How many pods were seen to end.
    fn seen(&self) -> u32 {
        u32::try_from(self.attempts.len() + self.cut.len()).unwrap_or(u32::MAX)
    }

    /// Puts into the outcome of a Job of which `pods` have ended what is known of them.
    pub fn explain(&self, outcome: &mut Outcome, pods: u32) {
        let mut attempts: Vec<&Ended> = self.attempts.values().collect();
        attempts.sort_by(|a, b| order(&a.attempt, &b.attempt));
        let skipped = attempts.len().saturating_sub(KEPT);
        outcome.attempts = attempts.iter().skip(skipped).map(|ended| ended.attempt.clone()).collect();
        let listed = u32::try_from(outcome.attempts.len()).unwrap_or(u32::MAX);
        outcome.attempts_omitted = pods.max(self.seen()).saturating_sub(listed);
        if outcome.result != OutcomeResult::Complete {
            outcome.stall = self.stalls.lasting();
        }
    }
}

/// In the order in which they ended: RFC 3339 in UTC compares as text.
fn order(a: &Attempt, b: &Attempt) -> std::cmp::Ordering {
    let key = |attempt: &Attempt| {
        (
            attempt.finished_at.is_none(),
            attempt.finished_at.clone(),
            attempt.started_at.clone(),
            attempt.pod.clone(),
        )
    };
    key(a).cmp(&key(b))
}

#[cfg(test)]
pub mod tests;
