//! The violations that [`check`](super::check) reports.

use std::fmt;

macro_rules! violations {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// A broken guarantee. The text names the request, the Job, the subject and the sequence.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum Violation {
            $($(#[$doc])* $name(String),)*
        }

        impl Violation {
            /// The names of all variants.
            pub const NAMES: &[&str] = &[$(stringify!($name)),*];

            /// The name of the variant.
            #[must_use]
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$name(_) => stringify!($name),)*
                }
            }

            /// The objects that are involved.
            #[must_use]
            pub fn text(&self) -> &str {
                match self {
                    $(Self::$name(text) => text,)*
                }
            }
        }

        impl fmt::Display for Violation {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$name(text) => write!(formatter, "{}: {text}", $text),)*
                }
            }
        }
    };
}

violations! {
    /// An acknowledged request has neither a Job nor a dead letter.
    LostRequest = "lost request",
    /// A request has two Jobs.
    DuplicateJob = "request with more than one Job",
    /// A request has a Job and a dead letter.
    JobAndRejection = "request with a Job and a dead letter",
    /// A Job has no published request.
    JobWithoutRequest = "Job without a request",
    /// A dead letter has no published request.
    RejectionWithoutRequest = "dead letter without a request",
    /// A Job has another name, template or request id than its request.
    MismatchedJob = "Job does not match its request",
    /// A request that must be rejected was not.
    MissingRejection = "request was not rejected",
    /// A request that must create a Job was rejected.
    UnexpectedRejection = "valid request was rejected",
    /// A dead letter has the wrong reason.
    WrongReason = "dead letter with the wrong reason",
    /// A request has two dead letters.
    DuplicateRejection = "request with more than one dead letter",
    /// The subject of a dead letter is that of another request.
    RejectionSubject = "dead letter on the subject of another request",
    /// A dead letter has another payload than its request.
    RejectionPayload = "dead letter with another payload than its request",
    /// A dead letter lacks a header.
    RejectionHeader = "dead letter without a required header",
    /// `JOBS` still holds requests.
    QueuedRequests = "requests are still queued",
    /// A Job has no `OUTCOME`.
    MissingOutcome = "Job without OUTCOME",
    /// A Job has more than one `OUTCOME`.
    DuplicateOutcome = "Job with more than one OUTCOME",
    /// An event follows the `OUTCOME` of its Job.
    EventAfterOutcome = "event after the OUTCOME",
    /// An outcome contradicts the Job's conditions.
    WrongResult = "outcome contradicts the Job's conditions",
    /// The outcome is `Deleted` or `Cancelled`, but the watch saw a final condition. If no
    /// dispatcher ran between the final condition and the deletion, the result cannot be known.
    MissedFinish = "final condition was missed",
    /// An event is about a Job that the dispatcher does not manage.
    UnmanagedJob = "event about an unmanaged Job",
    /// A finished Job with a stored outcome is not retired.
    NotRetired = "finished Job is not retired",
    /// A retired Job does not have the TTL of its template.
    WrongTtl = "retired Job with a wrong TTL",
    /// Events of a Job are not ordered by resourceVersion.
    OutOfOrder = "events out of order",
    /// An event about a pod has a newer resourceVersion than every event about its Job.
    PodEventAhead = "event about a pod is newer than every event about its Job",
    /// A state of a Job was published twice.
    DuplicateEvent = "state published twice",
    /// An `ADDED` is not the first event of its Job.
    AddedNotFirst = "ADDED is not the first event",
    /// A Job has no `ADDED`.
    MissingAdded = "Job without ADDED",
    /// No event before the `OUTCOME` has the final condition.
    MissingFinalEvent = "no event with the final condition before the OUTCOME",
    /// The events of two Jobs with the same name are mixed.
    Interleaved = "events of two Jobs with the same name are mixed",
    /// A message is not a status event.
    Malformed = "message in JOB_STATUS is not a status event",
    /// An event has the subject of another Job.
    WrongSubject = "event on the subject of another Job",
    /// A header contradicts the body.
    WrongHeader = "header contradicts the event",
    /// An event names another request than its Job.
    WrongRequest = "event names another request than its Job",
    /// A subscriber received a message that the stream does not hold.
    ReceivedUnknown = "subscriber received a message that is not stored",
    /// A subscriber received a message that differs from the stored one.
    ReceivedDifferent = "subscriber received a message that differs from the stored one",
    /// A subscriber received messages in another order.
    ReceivedOutOfOrder = "subscriber received messages out of order",
    /// A subscriber missed a message although it stayed connected.
    ReceivedTooFew = "subscriber missed a message",
}

/// The severity of a violation, for counting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ViolationClass {
    /// Something is missing: a Job, a dead letter, an event.
    Lost,
    /// Something exists twice.
    Duplicated,
    /// Anything else.
    Incorrect,
}

impl Violation {
    /// The class of the variant.
    #[must_use]
    pub fn class(&self) -> ViolationClass {
        match self {
            Self::LostRequest(_)
            | Self::MissingRejection(_)
            | Self::QueuedRequests(_)
            | Self::MissingOutcome(_)
            | Self::MissedFinish(_)
            | Self::MissingAdded(_)
            | Self::MissingFinalEvent(_)
            | Self::ReceivedTooFew(_) => ViolationClass::Lost,
            Self::DuplicateJob(_)
            | Self::JobAndRejection(_)
            | Self::DuplicateRejection(_)
            | Self::DuplicateOutcome(_)
            | Self::EventAfterOutcome(_)
            | Self::DuplicateEvent(_) => ViolationClass::Duplicated,
            _ => ViolationClass::Incorrect,
        }
    }
}
