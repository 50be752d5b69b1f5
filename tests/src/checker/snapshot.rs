//! Reads the streams and the cluster without a record of the requests.

use async_nats::jetstream;

use super::history::History;
use super::{streams, watch};

/// Reads the streams and the Jobs.
///
/// # Errors
/// If one of them cannot be read.
pub async fn read(
    nats: &async_nats::Client,
    kubernetes: &kube::Client,
    namespace: &str,
) -> Result<History, String> {
    let context = jetstream::new(nats.clone());
    // Listed before and after the streams are read: an event is not missing if the Job changed
    // meanwhile.
    let mut jobs = watch::present(kubernetes.clone(), namespace).await?;
    let status = streams::read(&context, "JOB_STATUS", 0).await?;
    for job in watch::present(kubernetes.clone(), namespace).await? {
        if !jobs.iter().any(|before| before.uid == job.uid) {
            jobs.push(job);
        }
    }
    let rejected = streams::read(&context, "JOB_REJECTED", 0).await?;
    let (queued_requests, _) = streams::state(&context, "JOBS").await?;
    Ok(History {
        jobs,
        status: status.into_iter().map(Into::into).collect(),
        rejected: rejected.into_iter().map(Into::into).collect(),
        queued_requests,
        ..History::default()
    })
}
