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
        names::{JobName, RequestId, TemplateName},
    },
    request::cancellation::Cancel,
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
        lookup::{Found, Lookup, Queue, not_found},
    },
};

/// How often a deletion is repeated for a Job that changes meanwhile.
const TRIES: usize = 10;
/// The longest wait for the watch to observe a Job whose request has left the queue.
const WATCH_DELAY: Duration = Duration::from_secs(1);

/// Handles `cancel` calls.
pub(crate) struct CancelHandler {
    pub(crate) jobs: JobClient,
    pub(crate) cancellations: Cancellations,
    /// Finds the Job of a request id.
    pub(crate) limiter: ConcurrencyLimiter,
    pub(crate) history: History,
    pub(crate) queue: Queue,
}

/// The result of a cancellation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CancelResult {
    /// The Job is deleted; its outcome follows.
    Deleted,
    /// The queued request will be rejected.
    Pending,
    /// The Job was finished already.
    Finished,
}

impl CancelResult {
    fn as_str(self) -> &'static str {
        match self {
            Self::Deleted => "deleted",
            Self::Pending => "pending",
            Self::Finished => "finished",
        }
    }
}

impl CancelHandler {
    /// Cancels, and answers once the result is certain.
    ///
    /// # Errors
    /// [`ErrorCode::NotFound`], or [`ErrorCode::NotReady`], which leaves open whether the
    /// cancellation takes effect.
    pub(super) async fn cancel(&self, template: &Template, target: &Target) -> Result<Bytes, ServiceError> {
        let (result, name) = match target {
            Target::Name(name) => (self.by_name(template, name).await?, name.clone()),
            Target::Id(id) => self.by_id(template, id).await?,
        };
        let result = result.as_str();
        tracing::info!(template = %template.name, job = %name, result, "cancelled");
        Ok(json!({"result": result, "template": template.name, "name": name}).to_string().into())
    }

    async fn by_name(&self, template: &Template, name: &JobName) -> Result<CancelResult, ServiceError> {
        let template_name = &template.name;
        if let Some(result) = self.delete_job(template_name, name, None).await? {
            return Ok(result);
        }
        match self.find(template, &Lookup::Name(name)).await? {
            // A queue that is too long to search may contain the request.
            Found::Queued(_) | Found::Unknown => {
                let up_to = self.last_sequence().await?;
                let (template, name) = (template_name.clone(), name.clone());
                self.record(Cancel::Name { template, name, up_to }).await?;
                return Ok(CancelResult::Pending);
            }
            Found::Absent => {}
        }
        // The request may have left the queue after the first read of the Job.
        if let Some(result) = self.delete_job(template_name, name, None).await? {
            return Ok(result);
        }
        let last = self.history.last(template_name, name).await.map_err(ServiceError::not_ready)?;
        let Some(last) = last else { return Err(not_found(template, name)) };
        let event = last.headers.get(JOB_EVENT).map(async_nats::HeaderValue::as_str);
        Ok(if event == Some(EventType::Outcome.as_str()) {
            CancelResult::Finished
        } else {
            // The Job is deleted, and its outcome is not published yet.
            CancelResult::Deleted
        })
    }

    async fn by_id(
        &self,
        template: &Template,
        id: &RequestId,
    ) -> Result<(CancelResult, JobName), ServiceError> {
        let template_name = &template.name;
        let found = self.find(template, &Lookup::Id(id)).await?;
        if let Found::Queued(name) = &found {
            // A request is still queued for a moment after its Job exists.
            if let Some(result) = self.delete_job(template_name, name, Some(id)).await? {
                return Ok((result, name.clone()));
            }
            let up_to = self.last_sequence().await?;
            let cancel = Cancel::Request {
                template: template_name.clone(),
                request_id: id.clone(),
                name: name.clone(),
                up_to,
            };
            self.record(cancel).await?;
            return Ok((CancelResult::Pending, name.clone()));
        }
        if let Some(name) = self.limiter.wait_for_job(template_name, id, WATCH_DELAY).await
            && let Some(result) = self.delete_job(template_name, &name, Some(id)).await?
        {
            return Ok((result, name));
        }
        let queue = match found {
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
        template: &TemplateName,
        name: &JobName,
        id: Option<&RequestId>,
    ) -> Result<Option<CancelResult>, ServiceError> {
        for _ in 0..TRIES {
            let job = self.jobs.get(name.as_ref()).await;
            let job = job.map_err(|e| ServiceError::not_ready(e.to_string()))?;
            let state = job.and_then(|job| JobState::from_object(&job).ok());
            let matches =
                |state: &JobState| state.template == *template && id.is_none_or(|id| state.request_id == *id);
            let Some(state) = state.filter(matches) else { return Ok(None) };
            if state.outcome().is_some() {
                return Ok(Some(CancelResult::Finished));
            }
            self.record(Cancel::job(&state)).await?;
            match delete(&self.jobs, &state).await {
                Ok(RemovalResult::Deleted) => return Ok(Some(CancelResult::Deleted)),
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

    async fn find(&self, template: &Template, lookup: &Lookup<'_>) -> Result<Found, ServiceError> {
        self.queue.find(template, lookup).await.map_err(ServiceError::not_ready)
    }

    async fn last_sequence(&self) -> Result<u64, ServiceError> {
        self.queue.last_sequence().await.map_err(ServiceError::not_ready)
    }

    async fn record(&self, cancel: Cancel) -> Result<(), ServiceError> {
        self.cancellations.put(cancel).await.map_err(ServiceError::not_ready)
    }
}
