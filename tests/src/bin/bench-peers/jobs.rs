//! Watches the Jobs of a namespace: when each one existed, and for which request it is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dispatcher_tests::Namespace;
use dispatcher_tests::wait::try_until;
use futures::StreamExt;
use k8s_openapi::api::batch::v1::Job;
use kube::Api;
use kube::core::PartialObjectMeta;
use kube::runtime::{WatchStreamExt, watcher};
use tokio::task::JoinHandle;

use crate::manifest::REQUEST;
use crate::requests::WARM_UP;

/// A Job that was seen.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) at: Instant,
    /// The number of its request, if it tells.
    pub(crate) request: Option<usize>,
}

/// The Jobs of a namespace so far, without those of the warm-up.
#[derive(Debug)]
pub(crate) struct Jobs {
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct State {
    /// By name: a watch that starts again delivers Jobs again.
    seen: BTreeMap<String, Seen>,
    /// The names of the Jobs of the warm-up, once it is over.
    forgotten: Option<BTreeSet<String>>,
}

impl Drop for Jobs {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Jobs {
    pub(crate) fn watch(namespace: &Namespace) -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let jobs: Api<PartialObjectMeta<Job>> = Api::namespaced(namespace.client.clone(), &namespace.name);
        let all = state.clone();
        let task = tokio::spawn(async move {
            let events = watcher(jobs, watcher::Config::default()).default_backoff();
            let mut events = std::pin::pin!(events);
            while let Some(event) = events.next().await {
                if let Ok(watcher::Event::Apply(job) | watcher::Event::InitApply(job)) = event {
                    lock(&all).note(job.metadata.name.unwrap_or_default(), job.metadata.labels.as_ref());
                }
            }
        });
        Self { state, task }
    }

    pub(crate) fn all(&self) -> Vec<Seen> {
        lock(&self.state).seen.values().cloned().collect()
    }

    pub(crate) fn count(&self) -> usize {
        lock(&self.state).seen.len()
    }

    /// Ends the warm-up.
    pub(crate) fn forget(&self) {
        let mut state = lock(&self.state);
        state.forgotten = Some(std::mem::take(&mut state.seen).into_keys().collect());
    }

    /// Waits until there are at least this many Jobs.
    pub(crate) async fn at_least(&self, count: usize, deadline: Duration) -> Result<(), String> {
        try_until(&format!("{count} Jobs"), deadline, || async {
            let jobs = self.count();
            if jobs >= count { Ok(()) } else { Err(format!("{jobs} Jobs")) }
        })
        .await
    }

    /// Waits until no Job has appeared for a while.
    pub(crate) async fn quiet(&self, time: Duration, deadline: Duration) -> Result<(), String> {
        let from = Instant::now();
        try_until("a time without a further Job", deadline, || async {
            let last = self.all().iter().map(|job| job.at).max().unwrap_or(from);
            if last.elapsed() >= time { Ok(()) } else { Err(format!("a Job {:?} ago", last.elapsed())) }
        })
        .await
    }
}

impl State {
    fn note(&mut self, name: String, labels: Option<&BTreeMap<String, String>>) {
        let at = Instant::now();
        let request = labels.and_then(|labels| labels.get(REQUEST)?.parse().ok());
        let is_late = |forgotten: &BTreeSet<String>| {
            forgotten.contains(&name) || request.is_some_and(|request| request >= WARM_UP)
        };
        if !self.forgotten.as_ref().is_some_and(is_late) {
            self.seen.entry(name).or_insert(Seen { at, request });
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many of the requests have no Job, and how many Jobs are more than one for each.
pub(crate) fn lost_and_duplicated(jobs: &[Seen], requests: usize, knows_requests: bool) -> (usize, usize) {
    let served = match knows_requests {
        true => jobs.iter().filter_map(|job| job.request).collect::<BTreeSet<_>>().len(),
        false => jobs.len().min(requests),
    };
    (requests.saturating_sub(served), jobs.len().saturating_sub(served))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Instant;

    use super::{REQUEST, Seen, State, WARM_UP, lost_and_duplicated};

    fn jobs(requests: &[Option<usize>]) -> Vec<Seen> {
        requests.iter().map(|request| Seen { at: Instant::now(), request: *request }).collect()
    }

    #[test]
    fn jobs_of_the_warm_up_do_not_count_however_late() {
        let mut state = State::default();
        let labels = |request: usize| Some(BTreeMap::from([(REQUEST.to_owned(), request.to_string())]));
        state.note("a".to_owned(), labels(WARM_UP).as_ref());
        state.note("b".to_owned(), None);
        state.forgotten = Some(std::mem::take(&mut state.seen).into_keys().collect());
        state.note("b".to_owned(), None);
        state.note("c".to_owned(), labels(WARM_UP + 1).as_ref());
        state.note("d".to_owned(), labels(0).as_ref());
        assert_eq!(state.seen.keys().collect::<Vec<_>>(), ["d"]);
    }

    #[test]
    fn requests_without_a_job_are_lost_and_second_jobs_are_duplicates() {
        let jobs = jobs(&[Some(0), Some(2), Some(2), Some(2)]);
        assert_eq!(lost_and_duplicated(&jobs, 4, true), (2, 2));
    }

    #[test]
    fn jobs_that_name_no_request_are_counted() {
        assert_eq!(lost_and_duplicated(&jobs(&[None, None]), 3, false), (1, 0));
        assert_eq!(lost_and_duplicated(&jobs(&[None; 5]), 3, false), (0, 2));
    }
}
