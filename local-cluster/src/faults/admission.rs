//! Admission control: a function of the test sees each object before it is created.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::call::Call;

/// An object that is about to be created.
#[derive(Debug)]
pub struct Creation<'a> {
    /// The plural of the resource, for example `jobs`.
    pub resource: &'a str,
    /// Whether the create is a dry run.
    pub dry_run: bool,
    /// The object. Changes are stored.
    pub object: &'a mut Value,
}

/// The answer to a create that admission control does not admit.
#[derive(Clone, Debug, PartialEq)]
pub struct Denial {
    pub(crate) code: u16,
    pub(crate) status: Value,
}

impl Denial {
    /// An answer with this code, reason and message.
    #[must_use]
    pub fn new(code: u16, reason: &str, message: &str) -> Self {
        let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                            "message": message, "reason": reason, "code": code});
        Self { code, status }
    }

    /// The same answer, with details.
    #[must_use]
    pub fn with_details(mut self, details: Value) -> Self {
        if let Some(status) = self.status.as_object_mut() {
            status.insert("details".to_owned(), details);
        }
        self
    }

    /// The denial of a webhook that chose this code and message.
    #[must_use]
    pub fn webhook(code: u16, message: &str) -> Self {
        Self::new(code, "", &format!("admission webhook \"jobs.example.org\" denied the request: {message}"))
    }

    /// The answer while a webhook with `failurePolicy: Fail` does not answer.
    #[must_use]
    pub fn broken_webhook(why: &str) -> Self {
        let message = format!("Internal error occurred: failed calling webhook \"jobs.example.org\": {why}");
        Self::new(500, "InternalError", &message)
    }

    /// The answer of quota admission for the Job `name`.
    #[must_use]
    pub fn quota(name: &str) -> Self {
        let why = "exceeded quota: q, requested: count/jobs.batch=1, used: count/jobs.batch=5, limited: 5";
        Self::new(403, "Forbidden", &format!("jobs.batch \"{name}\" is forbidden: {why}"))
            .with_details(json!({"name": name, "group": "batch", "kind": "jobs"}))
    }
}

type Review = dyn Fn(Creation<'_>) -> Result<(), Denial> + Send + Sync;

/// The function, if one is set.
#[derive(Clone, Default)]
pub(super) struct Admission(Option<Arc<Review>>);

impl Admission {
    pub(super) fn new(review: impl Fn(Creation<'_>) -> Result<(), Denial> + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(review)))
    }

    pub(super) fn review(&self, call: &Call, dry_run: bool, object: &mut Value) -> Result<(), Denial> {
        match &self.0 {
            Some(review) => review(Creation { resource: call.resource.plural, dry_run, object }),
            None => Ok(()),
        }
    }
}
