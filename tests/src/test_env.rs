//! The environment of one test: a NATS and a Kubernetes namespace.
//!
//! It starts dispatchers in that environment, and reads and writes NATS and Kubernetes as any
//! client would; it never looks into a dispatcher.

mod streams;

use std::sync::Arc;

use async_nats::jetstream::{self, message::StreamMessage};
use async_nats::{Client, HeaderMap};
use k8s_openapi::api::batch::v1::Job;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::dispatcher::{Builder, Dispatcher};
use crate::kubernetes::{Kubernetes, Namespace};
use crate::nats::Nats;
use crate::proxy::{ApiProxy, NatsProxy};
use crate::wait::{TIMEOUT, until};

pub use streams::shipped_config;

/// A NATS, a namespace, and clients of both.
pub struct TestEnv {
    /// The NATS of this test.
    pub nats: Nats,
    /// The namespace of this test.
    pub namespace: Arc<Namespace>,
    /// A NATS client with all permissions.
    pub client: Client,
    /// `JetStream` through [`Self::client`].
    pub jetstream: jetstream::Context,
    /// Further settings of every dispatcher, such as its NATS credentials.
    pub settings: Vec<(String, String)>,
    /// Proxies that every dispatcher connects through.
    pub proxies: Option<Proxies>,
}

/// A proxy in front of the API server and one in front of NATS.
pub struct Proxies {
    /// In front of the API server.
    pub api: ApiProxy,
    /// In front of NATS.
    pub nats: NatsProxy,
}

impl TestEnv {
    /// Starts a NATS, in a container if possible, and creates a namespace in the shared Kubernetes.
    ///
    /// # Errors
    /// If this machine cannot run Kubernetes.
    pub async fn start() -> Result<Self, String> {
        Ok(Self::new(Nats::start().await, Kubernetes::shared().await?.namespace().await).await)
    }

    /// An environment of the given parts.
    pub async fn new(nats: Nats, namespace: impl Into<Arc<Namespace>>) -> Self {
        let client = nats.client().await;
        let jetstream = jetstream::new(client.clone());
        let namespace = namespace.into();
        Self { nats, namespace, client, jetstream, settings: vec![], proxies: None }
    }

    /// Builds a dispatcher that connects through [`Self::proxies`], if there are any.
    #[must_use]
    pub fn dispatcher(&self) -> Builder {
        match &self.proxies {
            None => self.dispatcher_without_proxies(),
            Some(Proxies { api, nats }) => self
                .dispatcher_without_proxies()
                .env("NATS_URL", &nats.url)
                .env("KUBECONFIG", &api.kubeconfig.display().to_string()),
        }
    }

    /// Builds a dispatcher that connects directly.
    #[must_use]
    pub fn dispatcher_without_proxies(&self) -> Builder {
        let builder = Dispatcher::builder(&self.nats, &self.namespace);
        self.settings.iter().fold(builder, |builder, (name, value)| builder.env(name, value))
    }

    /// Publishes a request without a request id and returns its stream sequence.
    pub async fn request(&self, payload: impl Into<String>) -> u64 {
        self.publish(payload.into().into_bytes(), None).await
    }

    /// Publishes a request with a request id and returns its stream sequence.
    pub async fn request_with_id(&self, id: &str, payload: &str) -> u64 {
        self.publish(payload.as_bytes().to_vec(), Some(id)).await
    }

    /// Publishes any bytes as a request and returns the stream sequence.
    ///
    /// # Panics
    /// If the stream does not store the message.
    pub async fn publish(&self, payload: Vec<u8>, id: Option<&str>) -> u64 {
        let mut headers = HeaderMap::new();
        if let Some(id) = id {
            headers.insert("Nats-Msg-Id", id);
        }
        let subject = "jobs.simple.create";
        let ack = self.jetstream.publish_with_headers(subject, headers, payload.into()).await;
        ack.unwrap().await.expect("JOBS stores the request").sequence
    }

    /// Publishes a request for a template and returns its stream sequence.
    ///
    /// # Errors
    /// If no stream stores it.
    pub async fn publish_to(&self, template: &str, payload: Value) -> Result<u64, String> {
        let subject = format!("jobs.{template}.create");
        let ack = self.jetstream.publish(subject, payload.to_string().into()).await;
        ack.map_err(|e| e.to_string())?.await.map(|ack| ack.sequence).map_err(|e| e.to_string())
    }

    /// All stored status messages of a Job, oldest first.
    ///
    /// # Panics
    /// If the stream does not exist.
    pub async fn history(&self, name: &str) -> Vec<StreamMessage> {
        self.messages("JOB_STATUS", &status_subject(name)).await
    }

    /// The types of all stored status events of a Job, oldest first.
    pub async fn event_types(&self, name: &str) -> Vec<String> {
        self.history(name).await.iter().map(|message| text(&event(message)["type"])).collect()
    }

    /// The last status event of a Job.
    pub async fn last_event(&self, name: &str) -> Option<Value> {
        let stream = self.jetstream.get_stream_no_info("JOB_STATUS").await.ok()?;
        let message = stream.get_last_raw_message_by_subject(&status_subject(name)).await;
        message.ok().map(|message| event(&message))
    }

    /// Waits until the last status event of a Job has this type, and returns the event.
    pub async fn until_last(&self, name: &str, type_: &str) -> Value {
        until(&format!("{type_} as the last event of {name}"), TIMEOUT, || async {
            let last = self.last_event(name).await;
            last.clone().filter(|last| last["type"] == type_).ok_or(last)
        })
        .await
    }

    /// Waits for the outcome of a Job and returns it.
    pub async fn outcome(&self, name: &str) -> Value {
        self.until_last(name, "OUTCOME").await["outcome"].clone()
    }

    /// Waits for the dead letter of the request with this sequence.
    pub async fn dead_letter(&self, sequence: u64) -> StreamMessage {
        let sequence = sequence.to_string();
        until(&format!("the dead letter of request {sequence}"), TIMEOUT, || async {
            let dead_letters = self.dead_letters().await;
            dead_letters.into_iter().find(|message| header(message, "Job-Request-Seq") == sequence)
        })
        .await
    }

    /// All dead letters, oldest first.
    ///
    /// # Panics
    /// If the stream does not exist.
    pub async fn dead_letters(&self) -> Vec<StreamMessage> {
        self.messages("JOB_REJECTED", "jobs.simple.rejected.*").await
    }

    async fn messages(&self, stream: &str, subject: &str) -> Vec<StreamMessage> {
        let stream = self.jetstream.get_stream_no_info(stream).await.unwrap();
        let mut messages: Vec<StreamMessage> = vec![];
        loop {
            let next = messages.last().map_or(1, |last| last.sequence + 1);
            match stream.direct_get_next_for_subject(subject, Some(next)).await {
                Ok(message) => messages.push(message),
                Err(_) => return messages,
            }
        }
    }

    /// Waits until `JOBS` holds no request.
    pub async fn until_queue_is_empty(&self) {
        until("JOBS to be empty", TIMEOUT, || async {
            let mut stream = self.jetstream.get_stream("JOBS").await.map_err(|e| e.to_string())?;
            match stream.info().await.map_err(|e| e.to_string())?.state.messages {
                0 => Ok(()),
                count => Err(format!("{count} requests")),
            }
        })
        .await;
    }

    /// Waits for a Job and returns it.
    pub async fn job(&self, name: &str) -> Job {
        until(&format!("the Job {name}"), TIMEOUT, || self.namespace.jobs.get(name)).await
    }

    /// Sets the status of a Job in place of the Job controller
    /// ([`managed_template`](crate::job_controller::managed_template)).
    ///
    /// # Panics
    /// If the API server refuses it.
    pub async fn set_status(&self, name: &str, status: Value) {
        let patch = json!({"status": status});
        let params = PatchParams::default();
        self.namespace.jobs.patch_status(name, &params, &Patch::Merge(&patch)).await.unwrap();
    }
}

fn status_subject(name: &str) -> String {
    format!("jobs.simple.status.{name}")
}

/// The status event in a message.
///
/// # Panics
/// If the payload is not JSON.
#[must_use]
pub fn event(message: &StreamMessage) -> Value {
    serde_json::from_slice(&message.payload).expect("a status event is JSON")
}

/// The value of a header; empty if it is absent.
#[must_use]
pub fn header(message: &StreamMessage, name: &str) -> String {
    message.headers.get(name).map(|value| value.as_str().to_owned()).unwrap_or_default()
}

/// The text of a JSON string; empty for any other value.
#[must_use]
pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
