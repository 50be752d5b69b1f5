//! The client: what any program with a NATS client does, nothing else.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::consumer::pull::OrderedConfig;
use futures::StreamExt;

use crate::event::Event;

/// How long a call may take.
const ANSWER: Duration = Duration::from_secs(60);

/// A connection to NATS.
pub(crate) struct Client {
    nats: async_nats::Client,
    jetstream: jetstream::Context,
}

/// A request that was refused, as `JOB_REJECTED` keeps it.
pub(crate) struct DeadLetter {
    pub(crate) payload: String,
    pub(crate) error: String,
}

impl Client {
    pub(crate) async fn connect(url: &str) -> Result<Self, String> {
        let nats = async_nats::connect(url).await.map_err(|error| format!("{url}: {error}"))?;
        Ok(Self { jetstream: jetstream::new(nats.clone()), nats })
    }

    pub(crate) async fn subscribe(&self, subject: &'static str) -> Result<async_nats::Subscriber, String> {
        let failed = |error: &dyn std::fmt::Display| format!("subscribing to {subject}: {error}");
        let subscriber = self.nats.subscribe(subject).await.map_err(|error| failed(&error))?;
        // So that the subscription is there before the first request is.
        self.nats.flush().await.map_err(|error| failed(&error))?;
        Ok(subscriber)
    }

    /// Requests a Job, like `nats req`; the answer is the stream's acknowledgement.
    pub(crate) async fn request_job(&self, payload: &'static str) -> Result<(), String> {
        let answer = self.nats.request("jobs.simple.create", payload.into()).await;
        let answer = answer.map_err(|error| format!("no answer to a request for a Job: {error}"))?;
        let text = String::from_utf8_lossy(&answer.payload);
        if text.contains("\"error\"") {
            Err(format!("a request for a Job was refused: {text}"))
        } else {
            Ok(())
        }
    }

    /// Calls a Job, like `nats req` with the header `Job-Wait: outcome`; the answer is its last event.
    pub(crate) async fn call(&self, template: &str, payload: &'static str) -> Result<Event, String> {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("Job-Wait", "outcome");
        let request =
            async_nats::Request::new().headers(headers).payload(payload.into()).timeout(Some(ANSWER));
        let answer = self.nats.send_request(format!("jobs.{template}.submit"), request).await;
        let answer = answer.map_err(|error| format!("no answer to a call of {template}: {error}"))?;
        let text = String::from_utf8_lossy(&answer.payload);
        match answer.headers.as_ref().and_then(|headers| headers.get("Nats-Service-Error")) {
            Some(error) => Err(format!("a call of {template} was refused: {error}: {text}")),
            None => serde_json::from_str(&text).map_err(|error| format!("no event: {error}: {text}")),
        }
    }

    /// Every event that `JOB_STATUS` holds, by Job, in order.
    pub(crate) async fn stored(&self) -> Result<BTreeMap<String, Vec<Event>>, String> {
        let failed = |error: &dyn std::fmt::Display| format!("reading JOB_STATUS: {error}");
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

    /// The last dead letter, like `nats stream get JOB_REJECTED --last-for jobs.simple.rejected`.
    pub(crate) async fn last_dead_letter(&self) -> Result<DeadLetter, String> {
        let failed = |error: &dyn std::fmt::Display| format!("reading JOB_REJECTED: {error}");
        let stream = self.jetstream.get_stream("JOB_REJECTED").await.map_err(|error| failed(&error))?;
        let message = stream.get_last_raw_message_by_subject("jobs.simple.rejected").await;
        let message = message.map_err(|error| failed(&error))?;
        let error = message.headers.get("Job-Error").map(ToString::to_string).unwrap_or_default();
        Ok(DeadLetter { payload: String::from_utf8_lossy(&message.payload).into_owned(), error })
    }
}
