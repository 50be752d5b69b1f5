//! `jobs.<template>.get`: the last event of a Job.

use bytes::Bytes;

use crate::micro::{
    error::{ErrorCode, ServiceError},
    history::History,
    queue::{Found, Lookup, Queue},
};
use dispatcher_core::{contract::names::JobName, template::Template};

/// Answers with the last event as it is stored, or tells whether the request is still queued.
///
/// # Errors
/// [`ErrorCode::Queued`], [`ErrorCode::NotFound`], or [`ErrorCode::NotReady`].
pub async fn get(
    history: &History,
    queue: &Queue,
    template: &Template,
    name: &JobName,
) -> Result<Bytes, ServiceError> {
    let last = || async {
        let last = history.last(&template.name, name).await.map_err(ServiceError::not_ready)?;
        Ok::<_, ServiceError>(last.map(|message| message.payload))
    };
    if let Some(event) = last().await? {
        return Ok(event);
    }
    let found = queue.find(template, &Lookup::Name(name)).await.map_err(ServiceError::not_ready)?;
    // A request leaves the queue after its first event is stored: between the two looks it may have.
    match last().await? {
        Some(event) => Ok(event),
        None => Err(refusal(&found, template, name)),
    }
}

fn refusal(found: &Found, template: &Template, name: &JobName) -> ServiceError {
    let template = &template.name;
    let (word, message) = match found {
        Found::Queued(_) => {
            (ErrorCode::Queued, format!("the request of the Job `{name}` is still in the queue"))
        }
        Found::Absent => (
            ErrorCode::NotFound,
            format!(
                "nothing is known of a Job `{name}` of the template {template}, and no request of it is in the queue"
            ),
        ),
        Found::Unknown => (
            ErrorCode::NotFound,
            format!(
                "nothing is known yet of a Job `{name}` of the template {template}; its request may be in the queue, which is too long to be looked through"
            ),
        ),
    };
    ServiceError::new(word, message).of(name)
}
