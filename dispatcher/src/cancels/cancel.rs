//! One entry of the bucket. Pure.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::contract::{
    job::JobState,
    names::{JobName, Kind, RequestId},
};

/// What is to be cancelled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "cancel", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Cancel {
    /// Requests for a Job of this name, as far as they were stored by then.
    Name {
        /// The kind.
        kind: Kind,
        /// The Job's name.
        name: JobName,
        /// The last sequence of `JOBS` that it concerns.
        up_to: u64,
    },
    /// The request of this identity, as far as it was stored by then.
    Request {
        /// The kind.
        kind: Kind,
        /// The identity.
        request_id: RequestId,
        /// The name of its Job.
        name: JobName,
        /// The last sequence of `JOBS` that it concerns.
        up_to: u64,
    },
    /// A Job.
    Job {
        /// The kind.
        kind: Kind,
        /// The Job's name.
        name: JobName,
        /// Its uid.
        uid: String,
    },
}

impl Cancel {
    /// The Job of a state.
    pub fn job(state: &JobState) -> Self {
        Self::Job { kind: state.kind.clone(), name: state.name.clone(), uid: state.uid.clone() }
    }

    /// The key in the bucket: letters, digits, `-` and `.` only.
    pub fn key(&self) -> String {
        match self {
            Self::Name { kind, name, .. } => name_key(kind, name),
            Self::Request { kind, request_id, .. } => request_key(kind, request_id),
            Self::Job { uid, .. } => job_key(uid),
        }
    }

    /// Kind and name of the Job that it concerns.
    pub fn target(&self) -> (&Kind, &JobName) {
        match self {
            Self::Name { kind, name, .. }
            | Self::Request { kind, name, .. }
            | Self::Job { kind, name, .. } => (kind, name),
        }
    }

    /// The last sequence of requests that it concerns; `None` of a Job.
    pub fn up_to(&self) -> Option<u64> {
        match self {
            Self::Name { up_to, .. } | Self::Request { up_to, .. } => Some(*up_to),
            Self::Job { .. } => None,
        }
    }

    /// Whether this very Job is concerned.
    pub fn is_of(&self, state: &JobState) -> bool {
        let (kind, name) = self.target();
        if (kind, name) != (&state.kind, &state.name) {
            return false;
        }
        match self {
            Self::Name { up_to, .. } => state.request_seq <= *up_to,
            Self::Request { request_id, up_to, .. } => {
                state.request_seq <= *up_to && *request_id == state.request_id
            }
            Self::Job { uid, .. } => *uid == state.uid,
        }
    }
}

/// The key of a cancelled name.
pub(super) fn name_key(kind: &Kind, name: &JobName) -> String {
    format!("name.{kind}.{name}")
}

/// The key of a cancelled request: an identity may hold what a key may not.
pub(super) fn request_key(kind: &Kind, id: &RequestId) -> String {
    let hash: String = Sha256::digest(id.as_ref()).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("request.{kind}.{hash}")
}

/// The key of a cancelled Job.
pub(super) fn job_key(uid: &str) -> String {
    format!("job.{uid}")
}
