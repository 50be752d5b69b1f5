//! `jobs.<kind>.get`: the last event of a Job.

use bytes::Bytes;

use super::{
    history::History,
    queue::{Found, Queue, Wanted},
    refusal::{Refusal, Word},
};
use crate::contract::{names::JobName, template::Template};

/// Answers with the last event as it is stored, or tells whether the request is still queued.
///
/// # Errors
/// [`Word::Queued`], [`Word::Unknown`], or [`Word::NotReady`].
pub async fn get(
    history: &History,
    queue: &Queue,
    template: &Template,
    name: &JobName,
) -> Result<Bytes, Refusal> {
    let last = || async {
        let last = history.last(&template.kind, name).await.map_err(Refusal::not_ready)?;
        Ok::<_, Refusal>(last.map(|message| message.payload))
    };
    if let Some(event) = last().await? {
        return Ok(event);
    }
    let found = queue.find(template, &Wanted::Name(name)).await.map_err(Refusal::not_ready)?;
    // A request leaves the queue after its first event is stored: between the two looks it may have.
    match last().await? {
        Some(event) => Ok(event),
        None => Err(refusal(&found, template, name)),
    }
}

fn refusal(found: &Found, template: &Template, name: &JobName) -> Refusal {
    let kind = &template.kind;
    let (word, message) = match found {
        Found::Queued(_) => (Word::Queued, format!("the request of the Job `{name}` is still in the queue")),
        Found::Absent => (
            Word::Unknown,
            format!(
                "nothing is known of a Job `{name}` of the kind {kind}, and no request of it is in the queue"
            ),
        ),
        Found::Unknown => (
            Word::Unknown,
            format!(
                "nothing is known yet of a Job `{name}` of the kind {kind}; its request may be in the queue, which is too long to be looked through"
            ),
        ),
    };
    Refusal::new(word, message).of(name)
}
