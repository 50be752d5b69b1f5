//! Creates the Job of a request: exactly one, however often the request is delivered.
//!
//! Idempotency lives in Kubernetes. The Job's name is deterministic, and its annotations contain
//! the id and the hash of its request. An `AlreadyExists` leads to a lookup, never to an
//! assumption.

use std::time::Instant;

use dispatcher_core::{
    contract::{
        job::{JobState, OutcomeLabel},
        names::{JobName, TemplateName},
        rejection::{Reason, Rejection},
    },
    request::{
        Identity, Request,
        admission::{changes, is_of_request, lost},
        error::{CallError, CreateFailure, HandleError, Stage, classify},
    },
    status::SubjectState,
};
use serde_json::Value;

use crate::{
    kube::JobClient,
    nats::status_stream::{LastMessage, StatusStream, StoreError},
    status::StatusHandle,
    telemetry::metrics::Metrics,
};

/// The Job of a request.
#[derive(Debug)]
pub(crate) enum CreateResult {
    /// This delivery created the Job. Its `ADDED` is due. The subject's state, if it was read.
    Created(Box<JobState>, Option<SubjectState>),
    /// An earlier delivery created the Job. Its `ADDED` may be due.
    Exists(Box<JobState>, Option<SubjectState>),
    /// The subject contains an event of the Job. Nothing is left to do.
    AlreadyPublished,
}

/// The result of a lookup.
enum Found {
    /// The Job of the request, or its events.
    Own(CreateResult),
    /// A Job or events of another request with the same id.
    Reused,
    /// A Job of another request or program, and the subject has this state.
    Other(SubjectState),
    /// No Job and no event of the request, and the subject has this state.
    Nothing(SubjectState),
}

/// Creates Jobs, and looks up existing ones.
#[derive(Clone)]
pub(crate) struct JobCreator {
    /// The Jobs of the namespace.
    pub client: JobClient,
    /// The published events.
    pub store: StatusStream,
    /// The events that are not published yet.
    pub status: StatusHandle,
    /// Counts the create calls.
    pub metrics: Metrics,
}

impl JobCreator {
    /// Creates the Job of a request.
    ///
    /// With `look_up_first`, an earlier delivery may have created the Job. Then the lookup comes
    /// first: the API server checks quotas before names, so an exhausted quota would otherwise turn
    /// a lost ack into a rejection.
    ///
    /// # Errors
    /// [`HandleError`] with the class of the failure.
    pub(crate) async fn create(
        &self,
        request: &Request,
        job: &Value,
        look_up_first: bool,
    ) -> Result<CreateResult, HandleError> {
        let mut subject = None;
        if look_up_first {
            let Request { template, name, identity, hash, .. } = request;
            match self.look_up(template, name, identity, Some(hash)).await? {
                Found::Own(result) => return Ok(result),
                Found::Reused => return Err(HandleError::Permanent(reused(request))),
                Found::Other(state) | Found::Nothing(state) => subject = Some(state),
            }
        }
        let mut repeated = false;
        loop {
            let start = Instant::now();
            let answer = self.client.create(job).await;
            let class = answer.as_ref().err().map(|error| classify(error, request.name.as_ref()));
            self.metrics.create(class, start);
            let (error, class) = match (answer, class) {
                (Ok(created), _) => {
                    let state = self.admitted(&request.name, &created, |found| changes(job, found)).await?;
                    return Ok(CreateResult::Created(state, subject));
                }
                (Err(error), class) => (error, class.unwrap_or(CreateFailure::Transient)),
            };
            return match class {
                CreateFailure::Exists => self.existing(request).await,
                CreateFailure::Transient => Err(HandleError::Transient(Stage::Create, error.to_string())),
                CreateFailure::Throttled => Err(HandleError::Throttled(error.to_string())),
                CreateFailure::Blocked => Err(HandleError::Blocked(Stage::Create, error.to_string())),
                CreateFailure::Refused => Err(HandleError::Permanent(refused(request, &error))),
                CreateFailure::Forbidden => match self.client.may("create").await {
                    // Permitted now, but maybe not when the create failed.
                    Ok(true) if !repeated => {
                        repeated = true;
                        continue;
                    }
                    Ok(true) => Err(HandleError::Permanent(refused(request, &error))),
                    Ok(false) => Err(HandleError::Blocked(Stage::Create, error.to_string())),
                    Err(review) => {
                        let reason = format!("{error}; access review failed: {review}");
                        Err(HandleError::Transient(Stage::Create, reason))
                    }
                },
            };
        }
    }

    /// The Job of a request that is about to be rejected: an earlier delivery may have created it
    /// before the template, a quota or a policy changed.
    ///
    /// # Errors
    /// [`HandleError`] if the lookup fails.
    pub(crate) async fn find(
        &self,
        template: &TemplateName,
        name: &JobName,
        identity: &Identity,
        hash: Option<&str>,
    ) -> Result<Option<CreateResult>, HandleError> {
        Ok(match self.look_up(template, name, identity, hash).await? {
            Found::Own(result) => Some(result),
            Found::Reused | Found::Other(_) | Found::Nothing(_) => None,
        })
    }

    /// Looks for the Job among unpublished events, then in the subject, then in Kubernetes.
    async fn look_up(
        &self,
        template: &TemplateName,
        name: &JobName,
        identity: &Identity,
        hash: Option<&str>,
    ) -> Result<Found, HandleError> {
        // A Job that was created by an earlier delivery and deleted before its `ADDED` was stored
        // is known only to this process.
        let pending = self.status.pending_job(template, name, &identity.id).await;
        if let Some(state) = pending.map_err(HandleError::other)? {
            return Ok(existing_of(Box::new(state), None, hash));
        }
        let subject = match self.store.last(template, name).await {
            Ok(None) => SubjectState::default(),
            Ok(Some(last)) => match self.published(template, name, identity, &last).await? {
                Some(Some(published)) if hash.is_some_and(|hash| hash != published) => {
                    return Ok(Found::Reused);
                }
                Some(_) => return Ok(Found::Own(CreateResult::AlreadyPublished)),
                None => last.known,
            },
            Err(StoreError::Foreign(sequence)) => SubjectState { sequence, last: None },
            Err(error) => return Err(HandleError::other(error)),
        };
        let found = self.client.get(name.as_ref()).await.map_err(|error| HandleError::of_call(&error))?;
        let Some(found) = found else { return Ok(Found::Nothing(subject)) };
        if !is_of_request(&found, identity, hash) {
            return Ok(Found::Other(subject));
        }
        // The process may have died between the create and the repair, or somebody changed the Job.
        let changed = OutcomeLabel::of(&found.metadata) == OutcomeLabel::Unbound;
        let state = match JobState::from_object(&found) {
            Ok(state) if !changed => Box::new(state),
            _ => self.admitted(name, &found, |found| lost(template, identity, hash, found)).await?,
        };
        Ok(existing_of(state, Some(subject), hash))
    }

    /// Whether the subject contains an event of the request; with the hash of the request, if the
    /// event carries it.
    async fn published(
        &self,
        template: &TemplateName,
        name: &JobName,
        identity: &Identity,
        last: &LastMessage,
    ) -> Result<Option<Option<String>>, HandleError> {
        if last.request_id == identity.id.as_ref() {
            return Ok(Some(last.request_hash.clone()));
        }
        // A later request may have used the name since.
        let found = self.store.find_request(template, name, &identity.id).await;
        found.map_err(HandleError::other)
    }

    /// The Job that made the create fail with `AlreadyExists`. The look-up reads the subject too: a
    /// Job that was copied under its own name has another uid than the published one.
    async fn existing(&self, request: &Request) -> Result<CreateResult, HandleError> {
        let Request { template, name, identity, hash, .. } = request;
        match self.look_up(template, name, identity, Some(hash)).await? {
            Found::Own(result) => Ok(result),
            Found::Reused => Err(HandleError::Permanent(reused(request))),
            Found::Other(_) => Err(HandleError::Permanent(taken(request))),
            Found::Nothing(_) => Err(HandleError::other("the Job of that name was just deleted")),
        }
    }
}

/// The existing Job with the request's id. Another hash means another request with that id.
fn existing_of(state: Box<JobState>, subject: Option<SubjectState>, hash: Option<&str>) -> Found {
    match hash {
        Some(hash) if hash != state.request_hash => Found::Reused,
        _ => Found::Own(CreateResult::Exists(state, subject)),
    }
}

fn reused(request: &Request) -> Rejection {
    let message = format!(
        "the request id {} was used before, for another request of the Job `{}`: \
         give each request its own `Nats-Msg-Id`",
        request.identity.id, request.name
    );
    Rejection::new(Reason::RequestIdReused, message).with_name(&request.name)
}

fn taken(request: &Request) -> Rejection {
    let message = format!(
        "the Job `{}` already exists and belongs to another request: give another `name`, \
         or `generateName` (a prefix) for a unique name",
        request.name
    );
    Rejection::new(Reason::NameTaken, message).with_name(&request.name)
}

fn refused(request: &Request, error: &CallError) -> Rejection {
    Rejection::new(Reason::Refused, format!("Kubernetes refused the Job: {error}")).with_name(&request.name)
}
