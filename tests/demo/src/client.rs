//! A NATS client of the dispatcher. It uses public subjects and streams only.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::consumer::pull::OrderedConfig;
use futures::StreamExt;

use crate::event::Event;

/// How long a `submit` call may take.
const SUBMIT_TIMEOUT: Duration = Duration::from_secs(60);

/// A connection to NATS.
pub(crate) struct Client {
    nats: async_nats::Client,
    jetstream: jetstream::Context,
}

/// A rejected request in `JOB_REJECTED`.
pub(crate) struct DeadLetter {
    pub(crate) payload: String,
    pub(crate) error: String,
}

impl Client {
    pub(crate) async fn connect(url: &str) -> Result<Self, String> {
        let nats =
            async_nats::connect(url).await.map_err(|error| format!("cannot connect to {url}: {error}"))?;
        Ok(Self { jetstream: jetstream::new(nats.clone()), nats })
    }

    pub(crate) async fn subscribe(&self, subject: &'static str) -> Result<async_nats::Subscriber, String> {
        let failed = |error: &dyn std::fmt::Display| format!("cannot subscribe to {subject}: {error}");
        let subscriber = self.nats.subscribe(subject).await.map_err(|error| failed(&error))?;
        // The subscription must exist before the first request.
        self.nats.flush().await.map_err(|error| failed(&error))?;
        Ok(subscriber)
    }

    /// Requests a Job, like `nats req`. The answer is the acknowledgement of the stream.
    pub(crate) async fn request_job(&self, payload: &'static str) -> Result<(), String> {
        let answer = self.nats.request("jobs.simple.create", payload.into()).await;
        let answer = answer.map_err(|error| format!("no acknowledgement of a request: {error}"))?;
        let text = String::from_utf8_lossy(&answer.payload);
        if text.contains("\"error\"") { Err(format!("the stream refused a request: {text}")) } else { Ok(()) }
    }

    /// Submits a request with the header `Job-Wait: outcome`. The answer is the last event of the
    /// Job.
    pub(crate) async fn submit(&self, template: &str, payload: &'static str) -> Result<Event, String> {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("Job-Wait", "outcome");
        let request =
            async_nats::Request::new().headers(headers).payload(payload.into()).timeout(Some(SUBMIT_TIMEOUT));
        let answer = self.nats.send_request(format!("jobs.{template}.submit"), request).await;
        let answer = answer.map_err(|error| format!("no answer on jobs.{template}.submit: {error}"))?;
        let text = String::from_utf8_lossy(&answer.payload);
        match answer.headers.as_ref().and_then(|headers| headers.get("Nats-Service-Error")) {
            Some(error) => Err(format!("jobs.{template}.submit failed: {error}")),
            None => serde_json::from_str(&text)
                .map_err(|error| format!("cannot decode an answer: {error}: {text}")),
        }
    }

    /// All events in `JOB_STATUS` by Job, oldest first.
    pub(crate) async fn stored_events(&self) -> Result<BTreeMap<String, Vec<Event>>, String> {
        let failed = |error: &dyn std::fmt::Display| format!("cannot read JOB_STATUS: {error}");
        let stream = self.jetstream.get_stream("JOB_STATUS").await.map_err(|error| failed(&error))?;
        let config =
            OrderedConfig { filter_subject: "jobs.*.status.*".to_owned(), ..OrderedConfig::default() };
        let consumer = stream.create_consumer(config).await.map_err(|error| failed(&error))?;
        let count = usize::try_from(consumer.cached_info().num_pending).map_err(|error| failed(&error))?;
        let mut messages = consumer.messages().await.map_err(|error| failed(&error))?.take(count);
        let mut stored: BTreeMap<String, Vec<Event>> = BTreeMap::new();
        while let Some(message) = messages.next().await {
            let message = message.map_err(|error| failed(&error))?;
            let event: Event = serde_json::from_slice(&message.payload).map_err(|error| failed(&error))?;
            let job = event.name.clone().unwrap_or_default();
            stored.entry(job).or_default().push(event);
        }
        Ok(stored)
    }

    /// The last dead letter, like `nats stream get JOB_REJECTED --last-for jobs.simple.rejected.*`.
    pub(crate) async fn last_dead_letter(&self) -> Result<DeadLetter, String> {
        let failed = |error: &dyn std::fmt::Display| format!("cannot read JOB_REJECTED: {error}");
        let stream = self.jetstream.get_stream("JOB_REJECTED").await.map_err(|error| failed(&error))?;
        let message = stream.get_last_raw_message_by_subject("jobs.simple.rejected.*").await;
        let message = message.map_err(|error| failed(&error))?;
        let error = message.headers.get("Job-Error").map(ToString::to_string).unwrap_or_default();
        Ok(DeadLetter { payload: String::from_utf8_lossy(&message.payload).into_owned(), error })
    }
}
