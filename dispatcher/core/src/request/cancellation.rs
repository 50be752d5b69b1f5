//! One entry of the bucket. Pure.

pub mod table;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::contract::{
    job::JobState,
    names::{JobName, RequestId, TemplateName},
};

/// What is to be cancelled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "cancel", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Cancel {
    /// Requests for a Job of this name, as far as they were stored by then.
    Name {
        /// The template.
        template: TemplateName,
        /// The Job's name.
        name: JobName,
        /// The last sequence of `JOBS` that it concerns.
        up_to: u64,
    },
    /// The request of this identity, as far as it was stored by then.
    Request {
        /// The template.
        template: TemplateName,
        /// The identity.
        request_id: RequestId,
        /// The name of its Job.
        name: JobName,
        /// The last sequence of `JOBS` that it concerns.
        up_to: u64,
    },
    /// A Job.
    Job {
        /// The template.
        template: TemplateName,
        /// The Job's name.
        name: JobName,
        /// Its uid.
        uid: String,
    },
}

impl Cancel {
    /// The Job of a state.
    pub fn job(state: &JobState) -> Self {
        Self::Job { template: state.template.clone(), name: state.name.clone(), uid: state.uid.clone() }
    }

    /// The key in the bucket: letters, digits, `-` and `.` only.
    pub fn key(&self) -> String {
        match self {
            Self::Name { template, name, .. } => name_key(template, name),
            Self::Request { template, request_id, .. } => request_key(template, request_id),
            Self::Job { uid, .. } => job_key(uid),
        }
    }

    /// TemplateName and name of the Job that it concerns.
    pub fn target(&self) -> (&TemplateName, &JobName) {
        match self {
            Self::Name { template, name, .. }
            | Self::Request { template, name, .. }
            | Self::Job { template, name, .. } => (template, name),
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
        let (template, name) = self.target();
        if (template, name) != (&state.template, &state.name) {
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
pub fn name_key(template: &TemplateName, name: &JobName) -> String {
    format!("name.{template}.{name}")
}

/// The key of a cancelled request: an identity may hold what a key may not.
pub fn request_key(template: &TemplateName, id: &RequestId) -> String {
    let hash: String = Sha256::digest(id.as_ref()).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("request.{template}.{hash}")
}

/// The key of a cancelled Job.
pub fn job_key(uid: &str) -> String {
    format!("job.{uid}")
}
