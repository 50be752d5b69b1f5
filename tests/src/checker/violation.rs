//! The ways in which a promise can be broken.

use std::fmt;

macro_rules! violations {
    ($($(#[$doc:meta])* $name:ident = $words:literal,)*) => {
        /// A broken promise; the text names the request, the Job, the subject and the sequence.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum Violation {
            $($(#[$doc])* $name(String),)*
        }

        impl Violation {
            /// Every name of a variant.
            pub const NAMES: &[&str] = &[$(stringify!($name)),*];

            /// The variant's name.
            #[must_use]
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$name(_) => stringify!($name),)*
                }
            }

            /// What it is that breaks it.
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
                    $(Self::$name(text) => write!(formatter, "{}: {text}", $words),)*
                }
            }
        }
    };
}

violations! {
    /// An acknowledged request has neither a Job nor a rejection.
    LostRequest = "a request is lost",
    /// A request has two Jobs.
    SecondJob = "a request has a second Job",
    /// A request has a Job and a rejection.
    JobAndRejection = "a request has a Job and a rejection",
    /// A Job of which nobody published the request.
    UnaskedJob = "a Job without a request",
    /// A rejection of which nobody published the request.
    UnaskedRejection = "a rejection without a request",
    /// A Job has another name, template or identity than its request.
    WrongJob = "a Job is not the one that was asked for",
    /// A request that had to be rejected was not.
    MissingRejection = "a rejection is missing",
    /// A request that had to become a Job was rejected.
    UnexpectedRejection = "a good request is rejected",
    /// A rejection has another reason than it had to have.
    WrongReason = "a rejection has the wrong reason",
    /// A rejection was repeated under another `Nats-Msg-Id`.
    RejectionRepeated = "a rejection is repeated under another Nats-Msg-Id",
    /// Two requests' rejections share a `Nats-Msg-Id`, so that one can swallow the other.
    RejectionIdShared = "two requests' rejections share a Nats-Msg-Id",
    /// A rejection does not carry its request's payload.
    RejectionPayload = "a rejection has another payload than its request",
    /// A rejection lacks a header of the contract.
    RejectionHeader = "a rejection lacks a header",
    /// A request was left in `JOBS`.
    LeftInQueue = "requests are left",
    /// A Job has no `OUTCOME`.
    NoOutcome = "a Job has no OUTCOME",
    /// A Job has a second `OUTCOME`.
    SecondOutcome = "a Job has a second OUTCOME",
    /// Something was said of a Job after its `OUTCOME`.
    AfterOutcome = "an event follows the OUTCOME of its Job",
    /// An outcome disagrees with the Job's conditions.
    WrongResult = "an outcome disagrees with the Job's conditions",
    /// `Deleted` or `Cancelled` of a Job that the watch saw end, although its events do not tell so. Where a Job ended and
    /// was deleted by hand while no dispatcher ran, nobody could know.
    EndOverlooked = "a Job's end was overlooked",
    /// A Job of another maker was spoken of.
    ForeignJob = "a Job of another maker is reported",
    /// A finished Job, its outcome stored, is not settled.
    NotSettled = "a finished Job is not settled",
    /// A settled Job has not the TTL of its template.
    WrongTtl = "a settled Job has a wrong TTL",
    /// Events of a Job are not in the order of its resourceVersions.
    OutOfOrder = "events are out of order",
    /// An event of a pod carries a newer resourceVersion than any that was said of its Job.
    Ahead = "an event of a pod is ahead of its Job",
    /// A state of a Job was said twice.
    Repeated = "a state is said twice",
    /// An `ADDED` is not the first event of its Job.
    AddedNotFirst = "an ADDED is not the first event of its Job",
    /// The first event of a Job is not its `ADDED`.
    NoAdded = "a Job has no ADDED",
    /// No event before the `OUTCOME` carries the final condition.
    EndNotSaid = "no event brings the final condition before the OUTCOME",
    /// The events of two Jobs of one name are mixed.
    Interleaved = "events of two Jobs of one name are mixed",
    /// A message is no status event.
    Malformed = "a message in JOB_STATUS is no status event",
    /// An event stands on another Job's subject.
    WrongSubject = "an event stands on another Job's subject",
    /// A header disagrees with the body.
    WrongHeader = "a header disagrees with the event",
    /// An event carries another request than its Job.
    WrongRequest = "an event carries another request than its Job",
    /// A plain subscriber saw what the stream does not have.
    LiveUnknown = "a plain subscriber saw what the stream does not have",
    /// A plain subscriber saw a message otherwise than it is stored.
    LiveDiffers = "a plain subscriber saw a message otherwise than it is stored",
    /// A plain subscriber saw messages in another order.
    LiveOrder = "a plain subscriber saw another order",
    /// A plain subscriber missed a message although its connection held.
    LiveMissed = "a plain subscriber missed a message",
}

/// Which promise to the user a violation breaks, for counting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    /// Something that had to be there is not: a Job, a rejection, an outcome.
    Lost,
    /// Something is there twice.
    Repeated,
    /// Anything else.
    Wrong,
}

impl Violation {
    /// See [`Sort`].
    #[must_use]
    pub fn sort(&self) -> Sort {
        match self {
            Self::LostRequest(_)
            | Self::MissingRejection(_)
            | Self::LeftInQueue(_)
            | Self::NoOutcome(_)
            | Self::EndOverlooked(_)
            | Self::NoAdded(_)
            | Self::EndNotSaid(_)
            | Self::LiveMissed(_) => Sort::Lost,
            Self::SecondJob(_)
            | Self::JobAndRejection(_)
            | Self::RejectionRepeated(_)
            | Self::SecondOutcome(_)
            | Self::AfterOutcome(_)
            | Self::Repeated(_) => Sort::Repeated,
            _ => Sort::Wrong,
        }
    }
}
