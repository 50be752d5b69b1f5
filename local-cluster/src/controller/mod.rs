//! The Job controller: creates the pods of Jobs, counts their results and sets the Jobs'
//! conditions.
//!
//! ```text
//! watches of Jobs and pods ─▶ queue ─▶ sync: read one Job and its pods ─▶ rules ─▶ plan ─▶ sync: execute it
//!                               ▲                                       (pure)              │
//!                               └──────────── immediately, or at `requeue_at` ◀─────────────┘
//! ```
//!
//! The controller is a plain API client without a cache: each sync reads the Job and its pods, and
//! the watches only trigger syncs. It also deletes finished Jobs after their TTL, releases pods
//! whose Job is gone, and deletes expired Kubernetes Events. It ignores `podFailurePolicy`,
//! `successPolicy`, `backoffLimitPerIndex` and `maxFailedIndexes`.

mod conditions;
mod event_ttl;
pub(crate) mod events;
mod pods;
mod queue;
mod rules;
mod run;
mod sync;

use kube::Client;
use tokio_util::sync::CancellationToken;

/// The options of the Job controller.
#[derive(Clone, Debug)]
pub struct Options {
    /// The factor of the back-off between the pods of a Job. Default: 1, as in Kubernetes; 0
    /// disables it.
    pub time_scale: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self { time_scale: 1.0 }
    }
}

/// Reconciles the Jobs of all namespaces until `shutdown`. Failed API calls are retried without
/// limit.
pub async fn run(client: Client, options: Options, shutdown: CancellationToken) {
    let jobs =
        run::JobController::new(sync::JobSyncer::new(client.clone(), options.time_scale)).run(client.clone());
    shutdown.run_until_cancelled_owned(async { tokio::join!(jobs, event_ttl::run(client)) }).await;
}
