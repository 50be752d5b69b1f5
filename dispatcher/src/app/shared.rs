//! The state that all tasks share.

use crate::{
    cli::Config,
    concurrency::ConcurrencyLimiter,
    console::Console,
    leadership::Leadership,
    telemetry::{health::Health, metrics::Metrics, spans::Spans},
    watch::retired::RetiredJobs,
};

/// What all tasks share.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) config: Config,
    pub(super) health: Health,
    pub(super) metrics: Metrics,
    pub(super) spans: Spans,
    pub(super) leadership: Leadership,
    pub(super) limiter: ConcurrencyLimiter,
    pub(super) retired: RetiredJobs,
    pub(super) console: Option<Console>,
}
