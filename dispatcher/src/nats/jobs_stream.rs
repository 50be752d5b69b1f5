//! The stream `JOBS`: its incarnation, and its requests as they are stored.
//!
//! Reads do not deliver a request, and answer raw messages: the client library cannot decode the
//! headers of poison messages.

use std::sync::{Arc, PoisonError, RwLock};

use async_nats::jetstream::{
    self, consumer,
    stream::{Info, RawMessage},
};
use serde_json::json;

use dispatcher_core::contract::{names::TemplateName, nats_names::NatsNames};

use crate::nats::{
    scan::{call, get_message},
    settings,
};

/// The name and creation time of the stream: another value once the stream is recreated.
///
/// It is part of every derived request id. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct StreamIncarnation(Arc<RwLock<Arc<str>>>);

impl StreamIncarnation {
    fn of(info: &Info) -> Self {
        Self(Arc::new(RwLock::new(incarnation(info))))
    }

    /// The name and creation time, as a request id contains them.
    pub(crate) fn name(&self) -> Arc<str> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, name: Arc<str>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = name;
    }
}

fn incarnation(info: &Info) -> Arc<str> {
    format!("{} {}", info.config.name, info.created.unix_timestamp_nanos()).into()
}

/// Access to `JOBS`.
#[derive(Clone)]
pub(crate) struct JobsStream {
    context: jetstream::Context,
    names: NatsNames,
    incarnation: StreamIncarnation,
}

impl JobsStream {
    /// Access to the stream that has this information at start.
    pub(crate) fn new(context: jetstream::Context, names: NatsNames, info: &Info) -> Self {
        Self { context, names, incarnation: StreamIncarnation::of(info) }
    }

    /// The names of the installation.
    pub(crate) fn names(&self) -> &NatsNames {
        &self.names
    }

    /// `JetStream`.
    pub(crate) fn context(&self) -> &jetstream::Context {
        &self.context
    }

    /// The name and creation time, as a request id contains them.
    pub(crate) fn incarnation(&self) -> Arc<str> {
        self.incarnation.name()
    }

    /// Reads the incarnation again. Call it before pulling from a stream that was away.
    ///
    /// # Errors
    /// If the stream does not exist or does not answer.
    pub(crate) async fn refresh(&self) -> Result<(), String> {
        let name = self.names.jobs();
        let stream = call(&format!("stream {name}"), self.context.get_stream(name)).await?;
        let now = incarnation(stream.cached_info());
        if self.incarnation() != now {
            tracing::warn!(stream = name, "stream was recreated");
            self.incarnation.set(now);
        }
        Ok(())
    }

    /// The state of a template's consumer; `None` if it does not exist.
    ///
    /// # Errors
    /// If the server does not answer.
    pub(crate) async fn queue(&self, template: &TemplateName) -> Result<Option<consumer::Info>, String> {
        let subject = format!("CONSUMER.INFO.{}.{}", self.names.jobs(), template.consumer_name());
        let info = settings::info(&self.context, &subject).await.map_err(|e| e.to_string())?;
        info.map(serde_json::from_value).transpose().map_err(|e| format!("unexpected information: {e}"))
    }

    /// The first stored request of a template at or after a sequence.
    ///
    /// # Errors
    /// If the stream does not answer.
    pub(crate) async fn first_request(
        &self,
        template: &TemplateName,
        from: u64,
    ) -> Result<Option<RawMessage>, String> {
        let query = json!({"seq": from, "next_by_subj": self.names.create_subject(template)});
        get_message(&self.context, self.names.jobs(), &query).await
    }
}
