//! `jobs.<template>.cancel`: deletes a Job, or rejects a request that is still queued.
//!
//! Each cancellation is recorded in `JOB_CANCELS` before it takes effect, so that the leader
//! publishes `Cancelled` and another replica completes it after a crash.

use std::time::Duration;

use bytes::Bytes;
use dispatcher_core::{
    contract::{
        event::EventType,
        headers::JOB_EVENT,
        job::JobState,
        names::{JobName, RequestId},
        submitter::Submitter,
    },
    request::{
        cancellation::{Cancel, may_cancel},
        queue_index::Lookup,
    },
    template::Template,
};
use serde_json::json;

use crate::{
    cancellation::{
        Cancellations,
        enforcer::{RemovalResult, delete},
    },
    concurrency::ConcurrencyLimiter,
    kube::JobClient,
    micro::{
        api::Target,
        error::{ErrorCode, ServiceError},
        history::History,
        lookup::{Found, Lookups, not_found},
    },
};

/// How often a deletion is repeated for a Job that changes meanwhile.
const TRIES: usize = 10;
/// The longest wait for the watch to observe a Job whose request has left the queue.
const WATCH_DELAY: Duration = Duration::from_secs(1);
/// How many cancellations of queued requests of a template may be pending.
const MAX_PENDING: usize = 10_000;

/// Handles `cancel` calls.
pub(crate) struct CancelHandler {
    pub(crate) jobs: JobClient,
    pub(crate) cancellations: Cancellations,
    /// Knows the unfinished Jobs.
    pub(crate) limiter: ConcurrencyLimiter,
    pub(crate) history: History,
    pub(crate) lookups: Lookups,
    /// Whether a caller may cancel only the requests that its account submitted.
    pub(crate) own_account_only: bool,
}

/// The result of a cancellation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CancelResult {
    /// The Job is deleted; its outcome follows.
    Deleted,
    /// The Job is marked for deletion, and a finalizer of another program holds it.
    Deleting,
    /// The queued request will be rejected.
    Pending,
    /// The Job was finished already.
    Finished,
}

impl CancelResult {
    fn as_str(self) -> &'static str {
        match self {
            Self::Deleted => "deleted",
            Self::Deleting => "deleting",
            Self::Pending => "pending",
            Self::Finished => "finished",
        }
    }
}

/// One call, with its template and its caller.
struct Cancelling<'a> {
    handler: &'a CancelHandler,
    template: &'a Template,
    caller: Option<Submitter>,
}

impl CancelHandler {
    /// Cancels, and answers once the result is certain.
    ///
    /// # Errors
    /// [`ErrorCode::NotFound`], [`ErrorCode::Forbidden`], [`ErrorCode::Overloaded`], or
    /// [`ErrorCode::NotReady`], which leaves open whether the cancellation takes effect.
    pub(super) async fn cancel(
        &self,
        template: &Template,
        target: &Target,
        caller: Option<Submitter>,
    ) -> Result<Bytes, ServiceError> {
        let _place = self.lookups.place(&template.name).await?;
        let call = Cancelling { handler: self, template, caller };
        let (result, name) = match target {
            Target::Name(name) => (call.by_name(name).await?, name.clone()),
            Target::Id(id) => call.by_id(id).await?,
        };
        let result = result.as_str();
        let (account, user) = call.caller.as_ref().map(|s| (&s.account, s.user.as_ref())).unzip();
        tracing::info!(template = %template.name, job = %name, result, account, user = user.flatten(), "cancelled");
        Ok(json!({"result": result, "template": template.name, "name": name}).to_string().into())
    }
}

impl Cancelling<'_> {
    /// Asks the API server only if a Job of this name may be unfinished: callers can invent names.
    async fn by_name(&self, name: &JobName) -> Result<CancelResult, ServiceError> {
        let template = &self.template.name;
        let is_open = self.last_event(name).await?.is_some_and(|event| event != Some(EventType::Outcome));
        if (is_open || self.handler.limiter.has_job(template, name))
            && let Some(result) = self.delete_job(name, None).await?
        {
            return Ok(result);
        }
        match self.find(Lookup::Name(name)).await? {
            Found::Queued(_) => {
                // A request is still queued for a moment after its Job exists.
                if let Some(result) = self.delete_job(name, None).await? {
                    return Ok(result);
                }
                return self.record_name(name).await;
            }
            // A queue that is too long to search may contain the request.
            Found::Unknown => return self.record_name(name).await,
            Found::Forbidden => return Err(forbidden().with_job(name)),
            Found::Absent => {}
        }
        // The request may have left the queue after the first read: then its event is stored.
        match self.last_event(name).await? {
            None => Err(not_found(self.template, name)),
            Some(Some(EventType::Outcome)) => Ok(CancelResult::Finished),
            // Without a Job, the Job is deleted, and its outcome is not published yet.
            Some(_) => Ok(self.delete_job(name, None).await?.unwrap_or(CancelResult::Deleted)),
        }
    }

    async fn by_id(&self, id: &RequestId) -> Result<(CancelResult, JobName), ServiceError> {
        let template = &self.template.name;
        let found = self.find(Lookup::Id(id)).await?;
        if let Found::Queued(name) = &found {
            // A request is still queued for a moment after its Job exists.
            if let Some(result) = self.delete_job(name, Some(id)).await? {
                return Ok((result, name.clone()));
            }
            let (template, request_id, name) = (template.clone(), id.clone(), name.clone());
            let up_to = self.last_sequence().await?;
            let account = self.account();
            let cancel = Cancel::Request { template, request_id, name: name.clone(), up_to, account };
            self.record(cancel).await?;
            return Ok((CancelResult::Pending, name));
        }
        if let Some(name) = self.handler.limiter.wait_for_job(template, id, WATCH_DELAY).await
            && let Some(result) = self.delete_job(&name, Some(id)).await?
        {
            return Ok((result, name));
        }
        let queue = match found {
            Found::Forbidden => return Err(forbidden().with_request(id)),
            Found::Unknown => "the queue is too long to search for it",
            Found::Queued(_) | Found::Absent => "it is not queued",
        };
        let message =
            format!("no unfinished Job has this request id, and {queue}; cancel a finished Job by its name");
        Err(ServiceError::new(ErrorCode::NotFound, message).with_request(id))
    }

    /// Deletes the Job with this name if it exists and belongs to the template and request.
    async fn delete_job(
        &self,
        name: &JobName,
        id: Option<&RequestId>,
    ) -> Result<Option<CancelResult>, ServiceError> {
        let jobs = &self.handler.jobs;
        for _ in 0..TRIES {
            let job = jobs.get(name.as_ref()).await;
            let job = job.map_err(|e| ServiceError::not_ready(e.to_string()))?;
            let state = job.and_then(|job| JobState::from_object(&job).ok());
            let matches = |state: &JobState| {
                state.template == self.template.name && id.is_none_or(|id| state.request_id == *id)
            };
            let Some(state) = state.filter(matches) else { return Ok(None) };
            if state.outcome().is_some() {
                return Ok(Some(CancelResult::Finished));
            }
            if !self.may_cancel(state.submitter.as_ref()) {
                return Err(forbidden().with_job(name));
            }
            self.record(Cancel::job(&state)).await?;
            match delete(jobs, &state).await {
                Ok(RemovalResult::Deleted) => return Ok(Some(CancelResult::Deleted)),
                Ok(RemovalResult::Deleting) => return Ok(Some(CancelResult::Deleting)),
                Ok(RemovalResult::Finished) => return Ok(Some(CancelResult::Finished)),
                Ok(RemovalResult::Changed) => {}
                Err(error) => {
                    let message =
                        format!("{error}; the cancellation is recorded, and the dispatcher retries it");
                    return Err(ServiceError::not_ready(message).with_job(name));
                }
            }
        }
        let message = format!(
            "the Job changed during each of {TRIES} tries to delete it; the cancellation is recorded, and \
             the dispatcher retries it"
        );
        Err(ServiceError::not_ready(message).with_job(name))
    }

    async fn record_name(&self, name: &JobName) -> Result<CancelResult, ServiceError> {
        let up_to = self.last_sequence().await?;
        let (template, account) = (self.template.name.clone(), self.account());
        self.record(Cancel::Name { template, name: name.clone(), up_to, account }).await?;
        Ok(CancelResult::Pending)
    }

    /// The only account that a cancellation may cover; `None` for all.
    fn account(&self) -> Option<String> {
        let caller = self.caller.as_ref().filter(|_| self.handler.own_account_only);
        caller.map(|caller| caller.account.clone())
    }

    fn may_cancel(&self, owner: Option<&Submitter>) -> bool {
        may_cancel(self.handler.own_account_only, self.caller.as_ref(), owner)
    }

    /// The type of the last stored event of a name; the inner `None` is an unknown type.
    async fn last_event(&self, name: &JobName) -> Result<Option<Option<EventType>>, ServiceError> {
        let last = self.handler.history.last(&self.template.name, name).await;
        let last = last.map_err(ServiceError::not_ready)?;
        Ok(last.map(|last| last.headers.get(JOB_EVENT).and_then(|event| EventType::parse(event.as_str()))))
    }

    async fn find(&self, lookup: Lookup<'_>) -> Result<Found, ServiceError> {
        if self.handler.own_account_only && self.caller.is_none() {
            return Err(forbidden());
        }
        self.handler.lookups.find(self.template, lookup, |owner| self.may_cancel(owner)).await
    }

    async fn last_sequence(&self) -> Result<u64, ServiceError> {
        self.handler.lookups.last_sequence().await.map_err(ServiceError::not_ready)
    }

    async fn record(&self, cancel: Cancel) -> Result<(), ServiceError> {
        let cancellations = &self.handler.cancellations;
        if cancel.up_to().is_some() && cancellations.pending(&self.template.name) >= MAX_PENDING {
            let message = format!("{MAX_PENDING} cancellations of queued requests are pending; retry later");
            return Err(ServiceError::new(ErrorCode::Overloaded, message));
        }
        cancellations.put(cancel).await.map_err(ServiceError::not_ready)
    }
}

fn forbidden() -> ServiceError {
    let message = "another account submitted the request, or nobody knows which \
                   (DISPATCHER_CANCEL_OWN_ACCOUNT_ONLY)";
    ServiceError::new(ErrorCode::Forbidden, message)
}
