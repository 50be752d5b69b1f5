//! How one delivery of a request ended: what the intake answers to the stream, counts and records.

/// The end of one delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Disposition {
    /// This delivery created the Job.
    Created,
    /// The Job existed already.
    Exists,
    /// The request is a dead letter.
    Rejected,
    /// The request is delivered again later, for this reason.
    Retrying(String),
    /// As `Retrying`; no request of the template can succeed until configuration or permissions
    /// change.
    Blocked(String),
}

impl Disposition {
    /// Every value that [`Self::label`] returns.
    pub const LABELS: [&str; 5] = ["created", "exists", "rejected", "retrying", "blocked"];

    /// The value of the label `result` in metrics and spans.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Exists => "exists",
            Self::Rejected => "rejected",
            Self::Retrying(_) => "retrying",
            Self::Blocked(_) => "blocked",
        }
    }

    /// Whether the request has its Job.
    pub fn has_job(&self) -> bool {
        matches!(self, Self::Created | Self::Exists)
    }

    /// The same end when the server did not confirm the answer: it delivers the request again.
    #[must_use]
    pub fn unconfirmed(self, error: &str) -> Self {
        match self {
            Self::Created | Self::Exists | Self::Rejected => {
                Self::Retrying(format!("stream JOBS: the ack is not confirmed: {error}"))
            }
            retried => retried,
        }
    }
}
