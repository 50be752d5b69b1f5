//! What can be told afterwards, without a record: the streams and the cluster as they are.

use async_nats::jetstream;

use super::history::History;
use super::{streams, watch};

/// Reads the streams and the Jobs that are there.
///
/// # Errors
/// Where one of them cannot be read.
pub async fn read(
    nats: &async_nats::Client,
    kubernetes: &kube::Client,
    namespace: &str,
) -> Result<History, String> {
    let context = jetstream::new(nats.clone());
    // Before and after: of a Job whose state is older than its events, nothing is missing that is still to come.
    let mut jobs = watch::present(kubernetes.clone(), namespace).await?;
    let status = streams::read(&context, "JOB_STATUS", 0).await?;
    for job in watch::present(kubernetes.clone(), namespace).await? {
        if !jobs.iter().any(|before| before.uid == job.uid) {
            jobs.push(job);
        }
    }
    let rejected = streams::read(&context, "JOB_REJECTED", 0).await?;
    let (jobs_stream_left, _) = streams::state(&context, "JOBS").await?;
    Ok(History {
        jobs,
        status: status.into_iter().map(Into::into).collect(),
        rejected: rejected.into_iter().map(Into::into).collect(),
        jobs_stream_left,
        ..History::default()
    })
}
