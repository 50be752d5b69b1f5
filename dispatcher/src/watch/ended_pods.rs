//! Lists the ended pods of Jobs whose status counts more of them than the watch delivered.
//!
//! After a take-over, many Jobs ask at the same time. One list serves up to 100 of them: the API
//! server reads all pods of the namespace for each list.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use dispatcher_core::{
    contract::job::LABEL_TEMPLATE,
    request::error::CallError,
    status::{
        explain::pod::{PodObject, observation},
        pod_observation::PodState,
    },
};
use kube::{Api, api::ListParams};
use tokio::{
    sync::{Semaphore, oneshot},
    time::sleep,
};

use crate::{
    kube::call_within,
    retry::{backoff, with_deadline},
};

/// The largest number of Jobs per list.
const MAX_JOBS: usize = 100;
const PAGE_SIZE: u32 = 500;
/// The deadline of one page.
const PAGE_DEADLINE: Duration = Duration::from_secs(10);
/// The deadline of a Job, including its wait for other lists. Then its outcome does without.
const DEADLINE: Duration = Duration::from_secs(30);
/// Label of a pod with the uid of its Job, set by the API server.
const LABEL_JOB_UID: &str = "batch.kubernetes.io/controller-uid";
const ENDED: &str = "status.phase!=Pending,status.phase!=Running,status.phase!=Unknown";

type Waiting = Vec<(String, oneshot::Sender<Vec<PodState>>)>;

/// Lists ended pods, one list at a time.
pub(super) struct EndedPods {
    pods: Api<PodObject>,
    /// The Jobs that wait for a list.
    waiting: Mutex<Waiting>,
    permit: Semaphore,
}

impl EndedPods {
    pub(super) fn new(pods: Api<PodObject>) -> Self {
        Self { pods, waiting: Mutex::default(), permit: Semaphore::new(1) }
    }

    /// The ended pods of the Job with this uid that exist. Empty after the deadline.
    pub(super) async fn of_job(&self, uid: String) -> Vec<PodState> {
        let pods = with_deadline(DEADLINE, self.list_with_others(uid.clone())).await;
        pods.unwrap_or_else(|error| {
            self.lock().retain(|(_, sender)| !sender.is_closed());
            tracing::warn!(job_uid = uid, %error, "cannot list the ended pods of a job");
            vec![]
        })
    }

    async fn list_with_others(&self, uid: String) -> Vec<PodState> {
        let (sender, mut receiver) = oneshot::channel();
        self.lock().push((uid, sender));
        let mut delays = backoff();
        loop {
            tokio::select! {
                biased;
                found = &mut receiver => return found.unwrap_or_default(),
                // The holder of the permit lists for all waiting Jobs.
                Ok(_permit) = self.permit.acquire() => match self.list_next().await {
                    Ok(()) => {}
                    Err(error) => {
                        tracing::debug!(%error, "cannot list ended pods");
                        sleep(delays.next().unwrap_or(DEADLINE)).await;
                    }
                },
            }
        }
    }

    /// Lists for the Jobs that have waited longest.
    async fn list_next(&self) -> Result<(), CallError> {
        let uids: BTreeSet<String> = self.lock().iter().take(MAX_JOBS).map(|(uid, _)| uid.clone()).collect();
        if uids.is_empty() {
            return Ok(());
        }
        let mut found = self.list(&uids).await?;
        let served: Waiting = self.lock().extract_if(.., |(uid, _)| uids.contains(uid)).collect();
        for (uid, sender) in served {
            // A Job that stopped waiting needs no answer.
            let _ = sender.send(found.remove(&uid).unwrap_or_default());
        }
        Ok(())
    }

    async fn list(&self, uids: &BTreeSet<String>) -> Result<HashMap<String, Vec<PodState>>, CallError> {
        let uids = uids.iter().map(String::as_str).collect::<Vec<_>>().join(",");
        let labels = format!("{LABEL_TEMPLATE},{LABEL_JOB_UID} in ({uids})");
        let mut params = ListParams::default().labels(&labels).fields(ENDED).limit(PAGE_SIZE);
        let mut found = HashMap::<String, Vec<PodState>>::new();
        loop {
            let page = call_within(PAGE_DEADLINE, self.pods.list(&params)).await?;
            for pod in page.items.iter().filter_map(|pod| observation(pod, false)) {
                found.entry(pod.uid).or_default().push(pod.state);
            }
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params.continue_token = Some(token),
                None => return Ok(found),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
