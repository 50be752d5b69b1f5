//! The state of one status subject: the last event that `JOB_STATUS` holds for a Job name.

use crate::contract::{
    event::EventType,
    names::{JobName, TemplateName},
};

/// The template and the name of a Job. They identify one status subject.
pub type SubjectKey = (TemplateName, JobName);

/// The last message of a status subject.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SubjectState {
    /// Its sequence in the stream; 0 if the subject has no message.
    pub sequence: u64,
    /// Its event; `None` if the subject has no message, or if the message is not a status event.
    pub last: Option<LastEvent>,
}

/// The last event of a status subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastEvent {
    /// The uid of the Job.
    pub uid: String,
    /// The newest published resourceVersion of the Job.
    pub resource_version: u64,
    /// The type of the event.
    pub event: EventType,
}

impl LastEvent {
    /// Whether this is the outcome: no event of the same Job follows it.
    #[must_use]
    pub fn is_final(&self) -> bool {
        self.event == EventType::Outcome
    }
}
