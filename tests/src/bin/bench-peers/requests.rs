//! Publishes the requests of a side, as its documentation says.

use std::path::Path;
use std::time::Duration;

use async_nats::jetstream::context::ContextBuilder;
use async_nats::jetstream::{self, consumer, stream};
use dispatcher_tests::wait::try_until;
use dispatcher_tests::{Nats, bare};
use futures::{StreamExt, TryStreamExt};
use serde_json::json;

use crate::manifest::job_of;

/// How many requests are published at a time.
const IN_FLIGHT: usize = 256;
const DEADLINE: Duration = Duration::from_secs(120);
/// The number of the first request that only warms a side up.
pub(crate) const WARM_UP: usize = 1_000_000_000;

/// Where a request goes.
#[derive(Clone, Debug)]
pub(crate) enum Requester {
    /// The API server: the bare client's request is the create.
    Api(bare::Client),
    /// A subject of a stream, with an ack.
    Stream(jetstream::Context, String),
    /// A subject of core NATS, without an ack.
    Core(async_nats::Client, String),
}

impl Requester {
    pub(crate) fn api(kubeconfig: &Path, namespace: &str) -> Result<Self, String> {
        bare::Client::new(kubeconfig, namespace).map(Self::Api)
    }

    pub(crate) async fn stream(nats: &Nats, subject: &str) -> Result<Self, String> {
        let builder = ContextBuilder::default().timeout(DEADLINE).backpressure_on_inflight(true);
        Ok(Self::Stream(builder.build(nats.try_client().await?), subject.to_owned()))
    }

    pub(crate) async fn core(nats: &Nats, subject: &str) -> Result<Self, String> {
        Ok(Self::Core(nats.try_client().await?, subject.to_owned()))
    }

    /// Sends the request with this number.
    pub(crate) async fn send(&self, number: usize) -> Result<(), String> {
        let payload = json!({"foo": number.to_string()}).to_string();
        match self {
            Self::Api(client) => client.create(&job_of(number)?).await,
            Self::Stream(context, subject) => {
                let sent = context.publish(subject.clone(), payload.into()).await;
                let ack = sent.map_err(|error| error.to_string())?.await;
                ack.map(drop).map_err(|error| error.to_string())
            }
            Self::Core(client, subject) => {
                client.publish(subject.clone(), payload.into()).await.map_err(|error| error.to_string())?;
                client.flush().await.map_err(|error| error.to_string())
            }
        }
    }

    /// Waits until a work queue has no message.
    pub(crate) async fn drained(&self, stream: &str, deadline: Duration) -> Result<(), String> {
        let Self::Stream(context, _) = self else { return Ok(()) };
        try_until(&format!("the stream {stream} to be empty"), deadline, || async {
            let stream = context.get_stream(stream).await.map_err(|error| error.to_string())?;
            match stream.cached_info().state.messages {
                0 => Ok(()),
                queued => Err(format!("{queued} requests")),
            }
        })
        .await
    }

    /// Sends requests as fast as possible.
    pub(crate) async fn send_all(&self, count: usize) -> Result<(), String> {
        let sent = futures::stream::iter(0..count).map(|number| self.send(number));
        sent.buffer_unordered(IN_FLIGHT).try_collect().await
    }
}

/// Creates the stream and the consumer of a side that does not create them itself.
pub(crate) async fn create_queue(nats: &Nats, stream: &str, subject: &str) -> Result<(), String> {
    let context = jetstream::new(nats.try_client().await?);
    let config = stream::Config {
        name: stream.to_owned(),
        subjects: vec![subject.to_owned()],
        retention: stream::RetentionPolicy::WorkQueue,
        ..stream::Config::default()
    };
    let created = context.create_stream(config).await.map_err(|error| error.to_string())?;
    let config = consumer::pull::Config { durable_name: Some(stream.to_owned()), ..Default::default() };
    created.create_consumer(config).await.map(drop).map_err(|error| error.to_string())
}
