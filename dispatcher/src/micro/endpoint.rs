//! The endpoints of the service, and their counters for `$SRV.STATS`.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use dispatcher_core::{
    contract::{names::TemplateName, nats_names::NatsNames},
    template::Template,
};

use crate::micro::{api::Verb, error::ServiceError};

/// One operation of one template.
pub(super) struct Endpoint {
    pub(super) template: TemplateName,
    pub(super) verb: Verb,
    pub(super) name: String,
    pub(super) subject: String,
    /// The schemas of request and answer.
    metadata: Mutex<HashMap<String, String>>,
    counts: Mutex<Counts>,
}

/// The calls of an endpoint since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) requests: u64,
    pub(super) errors: u64,
    pub(super) processing: Duration,
    /// Code and text of the last error, such as `400:BadRequest: ...`.
    pub(super) last_error: String,
}

impl Endpoint {
    /// An endpoint without calls.
    pub(super) fn new(names: &NatsNames, template: &Template, verb: Verb) -> Self {
        Self {
            name: format!("{}-{}", verb.as_str(), template.name),
            subject: names.call_subject(template.name.as_ref(), verb.as_str()),
            metadata: Mutex::new(verb.metadata(template)),
            template: template.name.clone(),
            verb,
            counts: Mutex::default(),
        }
    }

    /// The schemas of request and answer.
    pub(super) fn metadata(&self) -> HashMap<String, String> {
        self.metadata.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Describes another version of the template.
    pub(super) fn describe(&self, template: &Template) {
        *self.metadata.lock().unwrap_or_else(PoisonError::into_inner) = self.verb.metadata(template);
    }

    /// Counts a call.
    pub(super) fn count(&self, took: Duration, error: Option<&ServiceError>) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.requests += 1;
        counts.processing += took;
        if let Some(error) = error {
            counts.errors += 1;
            counts.last_error = format!("{}:{}", error.code.http_status(), error.text());
        }
    }

    /// The counted calls.
    pub(super) fn counts(&self) -> Counts {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
