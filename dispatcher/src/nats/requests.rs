//! Requests as `JOBS` stores them, read without being delivered: also those whose headers no client can read.

use std::time::Duration;

use async_nats::jetstream::{self, ErrorCode, response::Response, stream::RawMessage};
use serde::Deserialize;
use serde_json::json;
use tokio::time::timeout;

use crate::nats::definitions::JOBS;
use dispatcher_core::contract::names::TemplateName;

/// How long one look may take.
const DEADLINE: Duration = Duration::from_secs(5);

/// The answer to `STREAM.MSG.GET`.
#[derive(Deserialize)]
struct StoredMessage {
    message: RawMessage,
}

/// The first request of the template from a sequence on; `None` where there is none.
///
/// # Errors
/// Where the stream does not answer.
pub async fn first(
    context: &jetstream::Context,
    template: &TemplateName,
    from: u64,
) -> Result<Option<RawMessage>, String> {
    let query = json!({"seq": from, "next_by_subj": template.create_subject()});
    let answer = timeout(DEADLINE, context.request(format!("STREAM.MSG.GET.{JOBS}"), &query)).await;
    let answer = answer.map_err(|_| late())?.map_err(|e| format!("stream {JOBS}: {e}"))?;
    match answer {
        Response::Ok(StoredMessage { message }) => Ok(Some(message)),
        Response::Err { error } if error.error_code() == ErrorCode::NO_MESSAGE_FOUND => Ok(None),
        Response::Err { error } => Err(format!("stream {JOBS}: {error}")),
    }
}

fn late() -> String {
    format!("stream {JOBS}: no answer within {} s", DEADLINE.as_secs())
}
