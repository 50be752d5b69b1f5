//! Restores the metadata of a Job that admission control changed at its creation, or deletes it.

use dispatcher_core::{
    contract::{
        job::{JobObject, JobState},
        names::JobName,
        rejection::{Reason, Rejection},
    },
    request::{
        admission::Changes,
        error::{CallError, CreateFailure, HandleError, Stage, classify},
    },
};

use crate::intake::create::JobCreator;

impl JobCreator {
    /// The state of a Job of a request, whose metadata is restored as far as `changes` finds it
    /// changed.
    ///
    /// Without it, no watch would select the Job, and no event of it could be published.
    ///
    /// # Errors
    /// [`HandleError`]. If it is permanent, the Job is deleted.
    pub(super) async fn admitted(
        &self,
        name: &JobName,
        found: &JobObject,
        changes: impl Fn(&JobObject) -> Option<Changes>,
    ) -> Result<Box<JobState>, HandleError> {
        let Some(Changes { keys, patch }) = changes(found) else { return state(found) };
        let keys = keys.join(", ");
        tracing::debug!(job = %name, keys, "the job's metadata was changed; restoring it");
        let problem = match self.client.patch(name.as_ref(), &patch).await {
            Ok(patched) if changes(&patched).is_none() => return state(&patched),
            Ok(_) => "each update changes it again".to_owned(),
            Err(error) => self.refusal(error, name).await?,
        };
        self.delete(name, found).await?;
        let message = format!(
            "admission control or another program changed the Job's metadata ({keys}), and it cannot be \
             restored: {problem}. The Job was deleted; exclude the dispatcher's Jobs from that policy"
        );
        Err(HandleError::Permanent(Rejection::new(Reason::Refused, message).with_name(name)))
    }

    /// Why the API server refuses to patch this Job.
    ///
    /// # Errors
    /// [`HandleError`] if another Job could be patched, or this one later.
    async fn refusal(&self, error: CallError, name: &JobName) -> Result<String, HandleError> {
        let blocked = || HandleError::Blocked(Stage::Other, error.to_string());
        match classify(&error, name.as_ref()) {
            CreateFailure::Refused => Ok(error.to_string()),
            // The Job was deleted, or another one has its name. The next delivery looks it up.
            _ if matches!(error.code(), Some(404 | 409)) => Err(HandleError::other(error)),
            CreateFailure::Blocked => Err(blocked()),
            CreateFailure::Forbidden => match self.client.may("patch").await {
                Ok(true) => Ok(error.to_string()),
                Ok(false) => Err(blocked()),
                Err(review) => Err(HandleError::other(format!("{error}; access review failed: {review}"))),
            },
            CreateFailure::Exists | CreateFailure::Transient | CreateFailure::Throttled => {
                Err(HandleError::other(error))
            }
        }
    }

    async fn delete(&self, name: &JobName, found: &JobObject) -> Result<(), HandleError> {
        let uid = found.metadata.uid.as_deref().unwrap_or_default();
        match self.client.delete_uid(name.as_ref(), uid).await {
            Ok(()) => Ok(()),
            // Deleted, or another Job has the name by now.
            Err(error) if matches!(error.code(), Some(404 | 409)) => Ok(()),
            Err(error) => Err(HandleError::of_call(&error)),
        }
    }
}

fn state(found: &JobObject) -> Result<Box<JobState>, HandleError> {
    JobState::from_object(found).map(Box::new).map_err(HandleError::other)
}
