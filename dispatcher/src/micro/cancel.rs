//! `jobs.<template>.cancel`: a Job is deleted, or a request that is still queued is rejected.

use std::time::Duration;

use bytes::Bytes;
use serde_json::json;

use crate::micro::{
    error::{ErrorCode, ServiceError},
    history::History,
    query::Target,
    queue::{Found, Lookup, Queue},
};
use crate::{
    cancellation::{
        Cancellations,
        enforcer::{RemovalResult, delete},
    },
    concurrency::ConcurrencyLimiter,
    kube::JobClient,
};
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

/// How often a Job that changes while it is deleted is looked at anew.
const TRIES: usize = 10;
/// How far the watch may be behind a Job whose request has left the queue.
const WATCH: Duration = Duration::from_secs(1);

/// See the module.
pub struct Cancelling {
    /// The Jobs of the namespace.
    pub(crate) jobs: JobClient,
    /// What is written down.
    pub(crate) cancels: Cancellations,
    /// Which Job an identity has.
    pub active: ConcurrencyLimiter,
    /// What is stored.
    pub history: History,
    /// The requests that are stored.
    pub queue: Queue,
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Done {
    /// The Job is deleted; its outcome follows.
    Deleted,
    /// The request is queued, and will be rejected.
    Pending,
    /// The Job was over already.
    Finished,
}

impl Done {
    fn as_str(self) -> &'static str {
        match self {
            Self::Deleted => "deleted",
            Self::Pending => "pending",
            Self::Finished => "finished",
        }
    }
}

impl Cancelling {
    /// Cancellations, and answers when that is certain.
    ///
    /// # Errors
    /// [`ErrorCode::NotFound`], or [`ErrorCode::NotReady`]: then it may be done or not.
    pub async fn cancel(&self, template: &Template, target: &Target) -> Result<Bytes, ServiceError> {
        let (done, name) = match target {
            Target::Name(name) => (self.by_name(template, name).await?, name.clone()),
            Target::Id(id) => self.by_id(template, id).await?,
        };
        tracing::info!(template = %template.name, job = %name, done = done.as_str(), "cancelled");
        Ok(json!({"result": done.as_str(), "template": template.name, "name": name}).to_string().into())
    }

    async fn by_name(&self, definition: &Template, name: &JobName) -> Result<Done, ServiceError> {
        let template = &definition.name;
        if let Some(done) = self.job(template, name, None).await? {
            return Ok(done);
        }
        match self.find(definition, &Lookup::Name(name)).await? {
            // Of a queue that is too long to be looked through it may be there.
            Found::Queued(_) | Found::Unknown => {
                let up_to = self.queue.last().await.map_err(ServiceError::not_ready)?;
                self.put(Cancel::Name { template: template.clone(), name: name.clone(), up_to }).await?;
                return Ok(Done::Pending);
            }
            Found::Absent => {}
        }
        // It may have left the queue between the two looks.
        if let Some(done) = self.job(template, name, None).await? {
            return Ok(done);
        }
        let last = self.history.last(template, name).await.map_err(ServiceError::not_ready)?;
        match last {
            Some(last)
                if last.headers.get(JOB_EVENT).map(|v| v.as_str()) == Some(EventType::Outcome.as_str()) =>
            {
                Ok(Done::Finished)
            }
            // It is gone; its outcome is not told yet.
            Some(_) => Ok(Done::Deleted),
            None => {
                let message = format!(
                    "nothing is known of a Job `{name}` of the template {template}, and no request of it is in the queue"
                );
                Err(ServiceError::new(ErrorCode::NotFound, message).of(name))
            }
        }
    }

    async fn by_id(&self, definition: &Template, id: &RequestId) -> Result<(Done, JobName), ServiceError> {
        let template = &definition.name;
        let found = self.find(definition, &Lookup::Id(id)).await?;
        if let Found::Queued(name) = &found {
            // Its Job may be there already: then that is the answer.
            if let Some(done) = self.job(template, name, Some(id)).await? {
                return Ok((done, name.clone()));
            }
            let up_to = self.queue.last().await.map_err(ServiceError::not_ready)?;
            let cancel = Cancel::Request {
                template: template.clone(),
                request_id: id.clone(),
                name: name.clone(),
                up_to,
            };
            self.put(cancel).await?;
            return Ok((Done::Pending, name.clone()));
        }
        if let Some(name) = self.active.until_named(template, id, WATCH).await
            && let Some(done) = self.job(template, &name, Some(id)).await?
        {
            return Ok((done, name));
        }
        let more = if found == Found::Unknown { ", as far as the queue could be looked through" } else { "" };
        let message = format!(
            "no request of this identity is queued, and no unfinished Job has it{more}; of a finished one ask by its name"
        );
        Err(ServiceError::new(ErrorCode::NotFound, message).of_request(id))
    }

    /// Cancellations the Job of that name, where it is there and of this template (and request).
    async fn job(
        &self,
        template: &TemplateName,
        name: &JobName,
        id: Option<&RequestId>,
    ) -> Result<Option<Done>, ServiceError> {
        for _ in 0..TRIES {
            let found =
                self.jobs.get(name.as_ref()).await.map_err(|e| ServiceError::not_ready(e.to_string()))?;
            let state = found.and_then(|found| JobState::read(&found).ok());
            let ours =
                |state: &JobState| state.template == *template && id.is_none_or(|id| state.request_id == *id);
            let Some(state) = state.filter(ours) else { return Ok(None) };
            if state.outcome().is_some() {
                return Ok(Some(Done::Finished));
            }
            // First of all it is written down: whoever reports its end knows then, and a crash leaves it to the others.
            self.put(Cancel::job(&state)).await?;
            match delete(&self.jobs, &state).await {
                Ok(RemovalResult::Deleted) => return Ok(Some(Done::Deleted)),
                Ok(RemovalResult::Finished) => return Ok(Some(Done::Finished)),
                Ok(RemovalResult::Changed) => {}
                Err(error) => {
                    let message = format!("{error}; it is written down, and tried again until it is done");
                    return Err(ServiceError::not_ready(message).of(name));
                }
            }
        }
        Err(ServiceError::not_ready("the Job changes too fast; it is written down that it is to go").of(name))
    }

    async fn find(&self, template: &Template, wanted: &Lookup<'_>) -> Result<Found, ServiceError> {
        self.queue.find(template, wanted).await.map_err(ServiceError::not_ready)
    }

    async fn put(&self, cancel: Cancel) -> Result<(), ServiceError> {
        self.cancels.put(cancel).await.map_err(ServiceError::not_ready)
    }
}
