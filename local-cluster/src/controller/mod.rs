//! The Job controller: creates the pods of Jobs, counts how they end, and says how the Jobs end.
//!
//! ```text
//! watches of Jobs and pods ─▶ queue ─▶ act: read one Job and its pods ─▶ rules ─▶ plan ─▶ act: carry it out
//!                               ▲                                      (pure)               │
//!                               └──────────── at once, or when the plan says ◀──────────────┘
//! ```
//!
//! It is a plain client of the API. Every round reads the Job and its pods anew, so that no cache can mislead it and no
//! memory has to be kept; the watches only say when to look. Beside the rules of Jobs it does three things that other
//! parts of Kubernetes do: it deletes finished Jobs whose TTL is over, lets go of pods whose Job is gone, and forgets old
//! Events.
//!
//! Not here: `podFailurePolicy`, `successPolicy`, `backoffLimitPerIndex`, `maxFailedIndexes`. A Job that sets them runs as if
//! it did not.

mod backoff;
mod conditions;
mod event_ttl;
pub(crate) mod events;
mod indexes;
mod plan;
mod pods;
mod queue;
mod rules;
mod run;
mod spec;
mod sync;
mod ttl;

use kube::Client;
use tokio_util::sync::CancellationToken;

/// How the Job controller is set.
#[derive(Clone, Debug)]
pub struct Options {
    /// Times this factor the back-off between the pods of a Job: 1 is Kubernetes' own, 0 is none at all.
    pub time_scale: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self { time_scale: 1.0 }
    }
}

/// Takes care of the Jobs of all namespaces until `shutdown`. An API that fails is tried again, for ever.
pub async fn run(client: Client, options: Options, shutdown: CancellationToken) {
    let jobs =
        run::JobController::new(sync::JobSyncer::new(client.clone(), options.time_scale)).run(client.clone());
    shutdown.run_until_cancelled_owned(async { tokio::join!(jobs, event_ttl::run(client)) }).await;
}
