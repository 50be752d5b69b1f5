//! Cancellations: the entries of the bucket `JOB_CANCELS`, and which requests and Jobs they cover.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::contract::{
    hex::to_hex,
    job::JobState,
    names::{JobName, RequestId, TemplateName},
    submitter::Submitter,
};

/// One cancellation, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "cancel", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Cancel {
    /// Cancels the stored requests for a Job of this name.
    Name {
        /// The template.
        template: TemplateName,
        /// The Job's name.
        name: JobName,
        /// The last covered sequence of `JOBS`. Later requests are not cancelled.
        up_to: u64,
        /// The only account whose requests are covered; absent for all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        account: Option<String>,
    },
    /// Cancels the stored requests with this request id.
    Request {
        /// The template.
        template: TemplateName,
        /// The request id.
        request_id: RequestId,
        /// The name of the Job.
        name: JobName,
        /// The last covered sequence of `JOBS`. Later requests are not cancelled.
        up_to: u64,
        /// The only account whose requests are covered; absent for all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        account: Option<String>,
    },
    /// Cancels a Job.
    Job {
        /// The template.
        template: TemplateName,
        /// The Job's name.
        name: JobName,
        /// The Job's uid.
        uid: String,
    },
}

impl Cancel {
    /// The cancellation of an observed Job.
    #[must_use]
    pub fn job(state: &JobState) -> Self {
        Self::Job { template: state.template.clone(), name: state.name.clone(), uid: state.uid.clone() }
    }

    /// The key in the bucket: letters, digits, `-` and `.` only.
    #[must_use]
    pub fn key(&self) -> String {
        match self {
            Self::Name { template, name, account, .. } => name_key(template, name, account.as_deref()),
            Self::Request { template, request_id, account, .. } => {
                request_key(template, request_id, account.as_deref())
            }
            Self::Job { uid, .. } => job_key(uid),
        }
    }

    /// The template and the name of the covered Job.
    #[must_use]
    pub fn target(&self) -> (&TemplateName, &JobName) {
        match self {
            Self::Name { template, name, .. }
            | Self::Request { template, name, .. }
            | Self::Job { template, name, .. } => (template, name),
        }
    }

    /// The last covered sequence of requests; `None` for a Job.
    #[must_use]
    pub fn up_to(&self) -> Option<u64> {
        match self {
            Self::Name { up_to, .. } | Self::Request { up_to, .. } => Some(*up_to),
            Self::Job { .. } => None,
        }
    }

    /// Whether the cancellation covers this Job.
    #[must_use]
    pub fn covers_job(&self, state: &JobState) -> bool {
        let (template, name) = self.target();
        if (template, name) != (&state.template, &state.name) {
            return false;
        }
        let is_covered = |account: &Option<String>, up_to: u64| {
            let of_account =
                |account: &String| state.submitter.as_ref().is_some_and(|s| s.account == *account);
            state.request_seq <= up_to && account.as_ref().is_none_or(of_account)
        };
        match self {
            Self::Name { up_to, account, .. } => is_covered(account, *up_to),
            Self::Request { request_id, up_to, account, .. } => {
                is_covered(account, *up_to) && *request_id == state.request_id
            }
            Self::Job { uid, .. } => *uid == state.uid,
        }
    }
}

/// A queued request, as far as cancellations distinguish requests.
#[derive(Debug, Clone, Copy)]
pub struct QueuedRequest<'a> {
    /// The template.
    pub template: &'a TemplateName,
    /// The name of its Job.
    pub name: &'a JobName,
    /// The request id.
    pub id: &'a RequestId,
    /// The sequence in `JOBS`.
    pub sequence: u64,
    /// The account that submitted it, if it is known.
    pub account: Option<&'a str>,
}

/// Whether a caller may cancel a request. `own_account_only` is the operator's setting; then an
/// unknown account owns nothing.
#[must_use]
pub fn may_cancel(own_account_only: bool, caller: Option<&Submitter>, owner: Option<&Submitter>) -> bool {
    !own_account_only || caller.zip(owner).is_some_and(|(caller, owner)| caller.account == owner.account)
}

fn name_key(template: &TemplateName, name: &JobName, account: Option<&str>) -> String {
    format!("name.{template}.{name}{}", account_suffix(account))
}

fn request_key(template: &TemplateName, id: &RequestId, account: Option<&str>) -> String {
    format!("request.{template}.{}{}", hash(id.as_ref()), account_suffix(account))
}

fn account_suffix(account: Option<&str>) -> String {
    account.map(|account| format!(".{}", hash(account))).unwrap_or_default()
}

/// Text that may contain characters that are not allowed in a key.
fn hash(text: &str) -> String {
    to_hex(&Sha256::digest(text))
}

/// The key of a cancelled Job.
#[must_use]
pub fn job_key(uid: &str) -> String {
    format!("job.{uid}")
}

/// An entry of the bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The cancellation.
    pub cancel: Cancel,
    /// The sequence in the bucket's stream.
    pub revision: u64,
    /// Whether the cluster was checked for a covered Job since a change that requires a check.
    pub checked: bool,
}

/// The entries of the bucket, as this replica has received them.
#[derive(Debug, Default)]
pub struct Table(HashMap<String, Entry>);

impl Table {
    /// Stores an entry, unless there is a newer one of the same key.
    pub fn put(&mut self, cancel: Cancel, revision: u64) {
        let key = cancel.key();
        if self.0.get(&key).is_none_or(|entry| entry.revision < revision) {
            self.0.insert(key, Entry { cancel, revision, checked: false });
        }
    }

    /// Removes an entry, unless there is a newer one of the same key.
    pub fn remove(&mut self, entry: &Entry) {
        let key = entry.cancel.key();
        if self.0.get(&key).is_some_and(|current| current.revision <= entry.revision) {
            self.0.remove(&key);
        }
    }

    /// The cluster was checked for the Job of this entry.
    pub fn mark_checked(&mut self, entry: &Entry) {
        if let Some(current) = self.0.get_mut(&entry.cancel.key()) {
            current.checked = current.revision == entry.revision;
        }
    }

    /// The cluster must be checked again for a Job of this name.
    pub fn mark_unchecked(&mut self, template: &TemplateName, name: &JobName) {
        for entry in self.0.values_mut().filter(|entry| entry.cancel.target() == (template, name)) {
            entry.checked = false;
        }
    }

    /// Whether the request is cancelled.
    #[must_use]
    pub fn covers(&self, request: &QueuedRequest<'_>) -> bool {
        let QueuedRequest { template, name, id, sequence, account } = *request;
        let covers = |key: String| {
            let up_to = self.0.get(&key).and_then(|entry| entry.cancel.up_to());
            up_to.is_some_and(|up_to| sequence <= up_to)
        };
        let covers_of =
            |account| covers(name_key(template, name, account)) || covers(request_key(template, id, account));
        !self.0.is_empty() && (covers_of(None) || account.is_some() && covers_of(account))
    }

    /// The number of cancellations of queued requests of a template.
    #[must_use]
    pub fn pending(&self, template: &TemplateName) -> usize {
        let is_pending =
            |entry: &&Entry| entry.cancel.up_to().is_some() && entry.cancel.target().0 == template;
        self.0.values().filter(is_pending).count()
    }

    /// All entries.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        self.0.values().cloned().collect()
    }
}

#[cfg(test)]
mod tests;
