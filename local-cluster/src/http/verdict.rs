//! What becomes of a call that a fault strikes.

use std::io;

use axum::response::Response;
use tokio::time::sleep;

use super::{answer, watch};
use crate::{error::ApiError, faults::Verdict};

/// Does what a verdict says: before `perform`, in its place, or after it.
///
/// # Errors
/// Where the connection is to break instead of an answer.
pub(crate) async fn carry_out(
    verdict: Verdict,
    perform: impl Future<Output = io::Result<Response>>,
) -> io::Result<Response> {
    match verdict {
        Verdict::Proceed => perform.await,
        Verdict::Fail(code) => Ok(answer::error(&ApiError::of_code(code))),
        Verdict::Break => Err(io::ErrorKind::ConnectionReset.into()),
        Verdict::Event(code) => Ok(watch::only_error(&ApiError::of_code(code))),
        Verdict::BreakAfter => {
            perform.await?;
            Err(io::ErrorKind::ConnectionReset.into())
        }
        Verdict::LateAfter(delay) => {
            let answer = perform.await?;
            sleep(delay).await;
            Ok(answer)
        }
        Verdict::FailAfter(code) => {
            let answer = perform.await?;
            // What failed by itself is told as it is.
            let is_done = answer.status().is_success();
            Ok(if is_done { answer::error(&ApiError::of_code(code)) } else { answer })
        }
    }
}
