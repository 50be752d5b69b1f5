//! The innocent tenant: publishes requests at a steady pace, and measures the time from the publish
//! to the status event `ADDED`.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use async_nats::{Client, HeaderMap, jetstream};
use dispatcher_tests::attacks::innocent_request_id;
use dispatcher_tests::until;
use dispatcher_tests::wait::TIMEOUT;
use futures::StreamExt;
use serde_json::{Value, json};
use tokio::time::{interval, timeout};

use crate::environment::{Environment, INNOCENT};
use crate::size::Size;

/// The innocent tenant.
pub(crate) struct Innocent {
    client: Client,
    jetstream: jetstream::Context,
    requests: usize,
    /// The number of the next request.
    pub(crate) next: usize,
}

impl Innocent {
    /// `requests`: the number of requests of a run.
    pub(crate) async fn new(environment: &Environment, requests: usize) -> Self {
        let client = environment.env.nats.client().await;
        let jetstream = jetstream::new(client.clone());
        Self { client, jetstream, requests, next: 0 }
    }

    /// Publishes the requests of one phase; returns the time to `ADDED` of each.
    ///
    /// # Panics
    /// If a request is refused, or has no `ADDED` at the deadline.
    pub(crate) async fn run(&mut self) -> Vec<Duration> {
        let numbers = self.next..self.next + self.requests;
        self.next = numbers.end;
        let mut events = self.client.subscribe(format!("jobs.{INNOCENT}.status.*")).await.unwrap();
        self.client.flush().await.unwrap();
        let (published, added) = tokio::join!(self.publish(numbers.clone()), async {
            let mut added = BTreeMap::new();
            while added.len() < numbers.len() {
                let event = timeout(TIMEOUT, events.next()).await;
                let event = event.unwrap_or_else(|_| panic!("{} of {} ADDED", added.len(), numbers.len()));
                let event: Value = serde_json::from_slice(&event.unwrap().payload).unwrap();
                if event["type"] == "ADDED" {
                    added.insert(event["name"].as_str().unwrap().to_owned(), Instant::now());
                }
            }
            added
        });
        let latency = |(name, at): (String, Instant)| added[&name].duration_since(at);
        published.into_iter().map(latency).collect()
    }

    async fn publish(&self, numbers: std::ops::Range<usize>) -> Vec<(String, Instant)> {
        let mut pace = interval(Size::INTERVAL);
        let mut published = Vec::new();
        let mut acks = Vec::new();
        for number in numbers {
            pace.tick().await;
            let mut headers = HeaderMap::new();
            headers.insert("Nats-Msg-Id", innocent_request_id(number).as_str());
            let payload = json!({"id": number.to_string()}).to_string();
            published.push((job_name(number), Instant::now()));
            let subject = format!("jobs.{INNOCENT}.create");
            acks.push(self.jetstream.publish_with_headers(subject, headers, payload.into()).await.unwrap());
        }
        for ack in acks {
            let ack = ack.await.unwrap();
            assert!(!ack.duplicate, "a foreign message with the same id swallowed request {}", ack.sequence);
        }
        published
    }

    /// Each Job of the innocent tenant has exactly one `OUTCOME`, its last event: `Complete`.
    pub(crate) async fn assert_each_outcome_is_complete(&self) {
        let stream = self.jetstream.get_stream("JOB_STATUS").await.unwrap();
        for number in 0..self.next {
            let subject = format!("jobs.{INNOCENT}.status.{}", job_name(number));
            let last = until(&format!("the outcome on {subject}"), TIMEOUT, || async {
                let last = stream.get_last_raw_message_by_subject(&subject).await;
                let last = last.map_err(|error| error.to_string())?;
                let event: Value = serde_json::from_slice(&last.payload).unwrap();
                if event["type"] == "OUTCOME" { Ok(event) } else { Err(event.to_string()) }
            })
            .await;
            assert_eq!(last["outcome"]["result"], "Complete", "{last}");
        }
    }
}

fn job_name(number: usize) -> String {
    format!("{INNOCENT}-{number}")
}
