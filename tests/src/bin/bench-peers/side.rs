//! The sides of the benchmark, and how much each one is asked.

use std::time::Duration;

/// What creates the Jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// A Kubernetes client that does nothing else.
    Bare,
    Dispatcher,
    ArgoShipped,
    /// Without the limits of its Kubernetes client.
    ArgoLifted,
    /// The same, with `atLeastOnce`.
    ArgoAtLeastOnce,
    /// The same, with a name of the Job that follows from the request.
    ArgoNamed,
    KedaShipped,
    /// Without the limits of its Kubernetes client, polling each second.
    KedaLifted,
}

impl Side {
    /// The sides whose speed is measured. The name of a Job does not change it.
    pub(crate) const MEASURED: [Self; 7] = [
        Self::Bare,
        Self::Dispatcher,
        Self::ArgoShipped,
        Self::ArgoLifted,
        Self::ArgoAtLeastOnce,
        Self::KedaShipped,
        Self::KedaLifted,
    ];
    /// The sides that are killed.
    pub(crate) const CRASHED: [Self; 7] = [
        Self::Dispatcher,
        Self::ArgoShipped,
        Self::ArgoLifted,
        Self::ArgoAtLeastOnce,
        Self::ArgoNamed,
        Self::KedaShipped,
        Self::KedaLifted,
    ];

    /// Its key in the JSON file.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Dispatcher => "dispatcher",
            Self::ArgoShipped => "argo-shipped",
            Self::ArgoLifted => "argo-lifted",
            Self::ArgoAtLeastOnce => "argo-at-least-once",
            Self::ArgoNamed => "argo-at-least-once-named",
            Self::KedaShipped => "keda-shipped",
            Self::KedaLifted => "keda-lifted",
        }
    }

    pub(crate) fn from_key(key: &str) -> Option<Self> {
        Self::MEASURED.into_iter().chain(Self::CRASHED).find(|side| side.key() == key)
    }

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Bare => "bare client",
            Self::Dispatcher => "dispatcher",
            Self::ArgoShipped => "Argo Events, as shipped",
            Self::ArgoLifted => "Argo Events, limits lifted",
            Self::ArgoAtLeastOnce => "Argo Events, limits lifted, `atLeastOnce`",
            Self::ArgoNamed => "Argo Events, the same, Job named by the request",
            Self::KedaShipped => "KEDA, as shipped",
            Self::KedaLifted => "KEDA, limits lifted",
        }
    }

    /// Whether its Jobs name their request. KEDA's do not.
    pub(crate) fn knows_requests(self) -> bool {
        !matches!(self, Self::KedaShipped | Self::KedaLifted)
    }

    /// Whether client-go's default limits bound it.
    fn is_limited(self) -> bool {
        matches!(self, Self::ArgoShipped | Self::KedaShipped)
    }
}

/// The numbers of a run.
#[derive(Clone, Debug)]
pub(crate) struct Size {
    /// The rounds of the burst.
    pub(crate) rounds: usize,
    /// The rounds of the crash.
    pub(crate) crash_rounds: usize,
    /// The requests of a burst.
    burst: usize,
    /// The requests of a burst of a side that client-go's default limits bound.
    limited_burst: usize,
    /// The requests whose delay is measured.
    samples: usize,
    /// The requests of a crash.
    pub(crate) crash_requests: usize,
}

impl Size {
    pub(crate) const FULL: Self = Self {
        rounds: 3,
        crash_rounds: 3,
        burst: 2_000,
        limited_burst: 100,
        samples: 400,
        crash_requests: 1_000,
    };
    pub(crate) const QUICK: Self =
        Self { rounds: 1, crash_rounds: 1, burst: 200, limited_burst: 40, samples: 40, crash_requests: 200 };

    pub(crate) fn burst(&self, side: Side) -> usize {
        match side.is_limited() {
            true => self.limited_burst,
            false => self.burst,
        }
    }

    /// The number of requests whose delay is measured, and the time between two of them. A side
    /// that polls every 30 s sees two polls; no side is asked more than it can create.
    pub(crate) fn delays(&self, side: Side) -> (usize, Duration) {
        let quarter = self.samples / 4;
        match side {
            Side::ArgoShipped => (quarter, Duration::from_millis(250)),
            Side::KedaShipped => (quarter, Duration::from_secs(60) / u32::try_from(quarter).unwrap_or(1)),
            _ => (self.samples, Duration::from_millis(50)),
        }
    }
}
