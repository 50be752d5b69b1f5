//! QueueSample up and create: a request becomes a Job, exactly one, however often it is delivered.
//!
//! Idempotency lives in Kubernetes: the name is deterministic, identity and hash stand on the Job, and `AlreadyExists`
//! is looked at, never assumed.

use std::time::Instant;

use k8s_openapi::api::batch::v1::Job;

use crate::{
    kube::Jobs,
    status::{
        StatusHandle,
        store::{LastMessage, Store, StoreError},
    },
    telemetry::metrics::Metrics,
};
use dispatcher_core::request::{
    Identity, Request,
    error::{CreateFailure, HandleError, classify},
};
use dispatcher_core::{
    contract::{
        job::{JobObject, JobState},
        names::{JobName, TemplateName},
        rejection::{Reason, Rejection},
    },
    request::error::CallError,
    status::SubjectState,
};

/// What became of a request.
#[derive(Debug)]
pub enum CreateResult {
    /// Its Job is there by this create: its first event is due. With what is known of its subject.
    Created(Box<JobState>, Option<SubjectState>),
    /// The same by an earlier create.
    Exists(Box<JobState>, Option<SubjectState>),
    /// It was spoken of already: nothing is left to do.
    AlreadyPublished,
}

/// Creates Jobs, and looks for those that are there.
#[derive(Clone)]
pub struct JobCreator {
    /// The Jobs of the namespace.
    pub jobs: Jobs,
    /// What was said of them.
    pub store: Store,
    /// What is to be said of them.
    pub status: StatusHandle,
    /// Where the calls that create are counted.
    pub metrics: Metrics,
}

impl JobCreator {
    /// Creates the request's Job. One that may have been handled before (`look_up_first`) is looked for first: a quota, which
    /// the API server checks before the name, would else turn a lost ack into a rejection.
    ///
    /// # Errors
    /// The [`HandleError`] of the request.
    pub async fn create(
        &self,
        request: &Request,
        job: &Job,
        look_up_first: bool,
    ) -> Result<CreateResult, HandleError> {
        let known = if look_up_first {
            match self
                .look_up(&request.template, &request.name, &request.identity, Some(&request.hash))
                .await?
            {
                Found::Ours(result) => return Ok(result),
                Found::Reused => return Err(HandleError::Permanent(reused(request))),
                Found::Nothing(known) => Some(known),
            }
        } else {
            None
        };
        let mut reviewed = false;
        loop {
            let asked = Instant::now();
            let answer = self.jobs.create(job).await;
            let failure = answer.as_ref().err().map(classify);
            self.metrics.create(failure, asked);
            let error = match answer {
                Ok(created) => return state(&created).map(|state| CreateResult::Created(state, known)),
                Err(error) => error,
            };
            return match classify(&error) {
                CreateFailure::Exists => self.exists(request, known).await,
                CreateFailure::Transient => Err(HandleError::Transient(error.to_string())),
                CreateFailure::Blocked => Err(HandleError::Blocked(error.to_string())),
                CreateFailure::Refused => Err(HandleError::Permanent(refused(request, &error))),
                CreateFailure::Forbidden => match self.jobs.may("create").await {
                    // The right may have come back between the two: a policy refuses it look_up_first.
                    Ok(true) if !reviewed => {
                        reviewed = true;
                        continue;
                    }
                    Ok(true) => Err(HandleError::Permanent(refused(request, &error))),
                    Ok(false) => Err(HandleError::Blocked(error.to_string())),
                    Err(review) => {
                        Err(HandleError::Transient(format!("{error}; and no access review: {review}")))
                    }
                },
            };
        }
    }

    /// What a request that is about to be rejected has become before, if anything: its Job may be there although the
    /// template, a quota or a policy has changed since.
    ///
    /// # Errors
    /// The [`HandleError`] of the request: it cannot be told yet.
    pub async fn find(
        &self,
        template: &TemplateName,
        name: &JobName,
        identity: &Identity,
        hash: Option<&str>,
    ) -> Result<Option<CreateResult>, HandleError> {
        Ok(match self.look_up(template, name, identity, hash).await? {
            Found::Ours(result) => Some(result),
            Found::Reused | Found::Nothing(_) => None,
        })
    }

    /// What is to be said of the name, its last status, then the Job of that name.
    async fn look_up(
        &self,
        template: &TemplateName,
        name: &JobName,
        identity: &Identity,
        hash: Option<&str>,
    ) -> Result<Found, HandleError> {
        // Created by an earlier delivery and deleted by hand before anything was said of it: in memory, and nowhere else.
        let untold = self.status.pending_job(template, name, &identity.id).await;
        if let Some(state) = untold.map_err(|e| HandleError::Transient(e.to_string()))? {
            return Ok(ours(Box::new(state), None, hash));
        }
        let known = match self.store.last(template, name).await {
            Ok(None) => SubjectState::default(),
            Ok(Some(LastMessage { known, request_id, request_hash, .. })) => {
                let spoke = if request_id == identity.id.as_ref() {
                    Some(request_hash)
                } else {
                    // The name was used look_up_first since; what was said before is still there.
                    self.store
                        .find_request(template, name, &identity.id)
                        .await
                        .map_err(|e| HandleError::Transient(e.to_string()))?
                };
                match (spoke, hash) {
                    (Some(Some(said)), Some(hash)) if hash != said => return Ok(Found::Reused),
                    (Some(_), _) => return Ok(Found::Ours(CreateResult::AlreadyPublished)),
                    (None, _) => known,
                }
            }
            Err(StoreError::Foreign(sequence)) => SubjectState { sequence, last: None },
            Err(error) => return Err(HandleError::Transient(error.to_string())),
        };
        let found = self.jobs.get(name.as_ref()).await.map_err(|error| HandleError::of_read(&error))?;
        let Some(found) = found.filter(|found| JobState::has_request_id(found, &identity.id)) else {
            return Ok(Found::Nothing(known));
        };
        Ok(ours(state(&found)?, Some(known), hash))
    }

    /// `AlreadyExists`: whose is it?
    async fn exists(
        &self,
        request: &Request,
        known: Option<SubjectState>,
    ) -> Result<CreateResult, HandleError> {
        let found =
            self.jobs.get(request.name.as_ref()).await.map_err(|error| HandleError::of_read(&error))?;
        match found {
            None => Err(HandleError::Transient("the Job of that name was deleted just now".to_owned())),
            Some(found) if !JobState::has_request_id(&found, &request.identity.id) => {
                Err(HandleError::Permanent(taken(request)))
            }
            Some(found) => match ours(state(&found)?, known, Some(&request.hash)) {
                Found::Ours(result) => Ok(result),
                Found::Reused | Found::Nothing(_) => Err(HandleError::Permanent(reused(request))),
            },
        }
    }
}

/// The Job of the request's id: of this request, or of another one with that id.
fn ours(state: Box<JobState>, known: Option<SubjectState>, hash: Option<&str>) -> Found {
    match hash {
        Some(hash) if hash != state.request_hash => Found::Reused,
        _ => Found::Ours(CreateResult::Exists(state, known)),
    }
}

/// The request's Job, as it came back. Where somebody changed its marks on the way, nothing could be told of it.
fn state(found: &JobObject) -> Result<Box<JobState>, HandleError> {
    match JobState::from_object(found) {
        Ok(state) => Ok(Box::new(state)),
        Err(error) => {
            let name = found.metadata.name.as_deref().unwrap_or_default();
            Err(HandleError::Blocked(format!("the Job {name} is there, and its marks were changed: {error}")))
        }
    }
}

enum Found {
    Ours(CreateResult),
    Reused,
    Nothing(SubjectState),
}

fn reused(request: &Request) -> Rejection {
    let message = format!(
        "the request id {} was used before, for another request of the Job `{}`: give each request its own `Nats-Msg-Id`",
        request.identity.id, request.name
    );
    Rejection::new(Reason::RequestIdReused, message).with_name(&request.name)
}

fn taken(request: &Request) -> Rejection {
    let message = format!(
        "the Job `{}` is there already, made by another request: give another `name`, or `generateName` (a prefix) \
         for a name of its own",
        request.name
    );
    Rejection::new(Reason::NameTaken, message).with_name(&request.name)
}

fn refused(request: &Request, error: &CallError) -> Rejection {
    Rejection::new(Reason::Refused, format!("Kubernetes refused the Job: {error}")).with_name(&request.name)
}
