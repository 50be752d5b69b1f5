//! A publish that JetStream takes for a duplicate: is what it stored under that identity the same request?
//!
//! JetStream compares ids only, over all templates. Another request under a used id is never stored, and nobody would hear of it.

use std::time::Duration;

use crate::micro::history::{History, Query};
use crate::status::store::{LastMessage, Store};
use dispatcher_core::{
    contract::{headers::NATS_MSG_ID, rejection::Rejection},
    request::Request,
};

/// How old a dead letter of a duplicate may be: JetStream knows an id for two minutes, unless the operator says otherwise.
const AGE: Duration = Duration::from_secs(60 * 60);

/// See the module.
#[derive(Debug)]
pub enum Original {
    /// It is the same request: whatever becomes, or became, of it is the answer.
    Same,
    /// It is the same request, and it is rejected.
    Rejected(Rejection),
    /// It is another one; or nothing is known of it any more.
    Other,
}

/// Looks for what is stored at `sequence`, or was: in the queue, in the history of the Job's name, among the dead letters.
///
/// # Errors
/// Where a stream does not answer.
pub(crate) async fn original(
    store: &Store,
    history: &History,
    asked: &Query,
    sequence: u64,
) -> Result<Original, String> {
    let same = |hash: Option<&str>| if asked.is_of(hash) { Original::Same } else { Original::Other };
    let Query { template, name, id, .. } = asked;
    if let Some(message) = history.request(sequence).await? {
        let id_there = message.headers.get(NATS_MSG_ID).map(|value| value.as_str());
        // Without a hash it is no JSON object, so no request that passed.
        return Ok(match Request::hash_of(template, &message.payload) {
            Some(hash)
                if message.subject.as_str() == template.create_subject() && id_there == Some(id.as_ref()) =>
            {
                same(Some(&hash))
            }
            _ => Original::Other,
        });
    }
    let last = store.last(template, name).await.map_err(|e| e.to_string())?;
    let spoke = match last {
        Some(LastMessage { request_id, request_hash, .. }) if request_id == id.as_ref() => Some(request_hash),
        Some(_) => store.find_request(template, name, id).await.map_err(|e| e.to_string())?,
        None => None,
    };
    if let Some(hash) = spoke {
        return Ok(same(hash.as_deref()));
    }
    Ok(match history.rejection(template, sequence, AGE).await? {
        Some((rejection, payload))
            if Request::hash_of(template, &payload).as_deref() == Some(&asked.hash) =>
        {
            Original::Rejected(rejection)
        }
        _ => Original::Other,
    })
}
