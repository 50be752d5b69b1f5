//! Records a run: start the recorder before the first request, publish through it, and finish it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::jetstream::context::ContextBuilder;
use async_nats::jetstream::{self, Context};
use futures::StreamExt;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::history::{Expect, History, ReceivedMessage, Request, StatusMessage, Subscriber, Times};
use super::publish::{self, PublishError, Record};
use super::streams;
use super::watch::JobWatch;
use crate::wait::try_until;

/// The interval between two polls for completion.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// How long to wait for a superfluous message once everything expected has arrived.
const GRACE_PERIOD: Duration = Duration::from_secs(1);
/// How long reading the streams may take, and how long the plain subscriber may lag.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(5);

/// A running recorder.
#[derive(Debug)]
pub struct Recorder {
    context: Context,
    watch: JobWatch,
    record: Record,
    live: Arc<Mutex<Vec<ReceivedMessage>>>,
    after: u64,
    connects: u64,
    subscriber: JoinHandle<()>,
    ttls: Mutex<BTreeMap<String, Option<i32>>>,
    gaps: AtomicBool,
}

impl Recorder {
    /// Starts the watch and the subscriber. If the test breaks the client's connection, no other
    /// recorder may share it. The client needs permission to read everything.
    ///
    /// # Errors
    /// If NATS or Kubernetes does not answer.
    pub async fn start(
        nats: async_nats::Client,
        kubernetes: kube::Client,
        namespace: &str,
    ) -> Result<Self, String> {
        let mut messages =
            nats.subscribe("jobs.*.status.*").await.map_err(|error| format!("subscribe: {error}"))?;
        nats.flush().await.map_err(|error| format!("flush: {error}"))?;
        let connects = nats.statistics().connects.load(Ordering::Relaxed);
        // Thousands of publishes may wait for their acks concurrently.
        let builder = ContextBuilder::default().timeout(publish::ACK_TIMEOUT).backpressure_on_inflight(true);
        let context: jetstream::Context = builder.build(nats);
        let (_, after) = streams::state(&context, "JOB_STATUS").await?;
        let live = Arc::new(Mutex::new(Vec::new()));
        let seen = live.clone();
        let subscriber = tokio::spawn(async move {
            while let Some(message) = messages.next().await {
                let header = |name: &str| message.headers.as_ref()?.get(name)?.as_str().parse().ok();
                seen.lock().unwrap_or_else(PoisonError::into_inner).push(ReceivedMessage {
                    subject: message.subject.to_string(),
                    sequence: header("Nats-Sequence"),
                    event: streams::json(&message.payload),
                });
            }
        });
        let watch = JobWatch::start(kubernetes, namespace).await?;
        let (record, ttls, gaps) = (Record::default(), Mutex::default(), AtomicBool::new(false));
        Ok(Self { context, watch, record, live, after, connects, subscriber, ttls, gaps })
    }

    /// Sets the TTL that retired Jobs of a template must have. Without this call any TTL is
    /// correct.
    pub fn expect_ttl(&self, template: &str, ttl: Option<i32>) {
        self.ttls.lock().unwrap_or_else(PoisonError::into_inner).insert(template.to_owned(), ttl);
    }

    /// Permits the plain subscriber to miss messages from now on: if the leader of a stream dies,
    /// its last messages may be stored but never republished.
    pub fn expect_gaps(&self) {
        self.gaps.store(true, Ordering::Relaxed);
    }

    /// Publishes a request and returns the sequence of its `PubAck`.
    ///
    /// Retries for a minute if that keeps the record correct: while there is no responder, and
    /// after a lost ack if there is a `Nats-Msg-Id`.
    ///
    /// # Errors
    /// If the request was not acknowledged; see [`PublishError`].
    pub async fn publish(
        &self,
        template: &str,
        payload: impl Into<Vec<u8>>,
        msg_id: Option<&str>,
    ) -> Result<u64, PublishError> {
        self.publish_expecting(template, payload, msg_id, Expect::Either).await
    }

    /// Like [`Recorder::publish`], if the result of the request is known.
    ///
    /// # Errors
    /// As [`Recorder::publish`].
    pub async fn publish_expecting(
        &self,
        template: &str,
        payload: impl Into<Vec<u8>>,
        msg_id: Option<&str>,
        expect: Expect,
    ) -> Result<u64, PublishError> {
        let (template, msg_id, payload) = (template.to_owned(), msg_id.map(str::to_owned), payload.into());
        let request = Request { seq: None, duplicate: false, template, msg_id, payload, expect };
        publish::publish(&self.context, &self.record, request).await
    }

    /// Adds a request that was published by other means.
    pub fn add(&self, request: Request) {
        self.record.add(request);
    }

    /// Waits until `JOBS` is empty, every Job has its outcome and finished Jobs are retired, then
    /// reads everything. At the deadline it prints the unfinished work and reads everything as
    /// well; [`super::check`] reports the same.
    ///
    /// # Errors
    /// If a stream cannot be read.
    pub async fn finish(&self, deadline: Duration) -> Result<History, String> {
        let progress = tokio::sync::Mutex::new((0, BTreeSet::new()));
        let complete = try_until("all requests to finish", deadline, || async {
            let result = self.check_complete(&mut *progress.lock().await).await;
            if result.is_err() {
                sleep(POLL_INTERVAL).await;
            }
            result
        });
        if let Err(missing) = complete.await {
            println!("{missing}");
        }
        sleep(GRACE_PERIOD).await;
        let mut history = try_until("the streams", READ_TIMEOUT, || self.read()).await?;
        let last = history.status.last().map_or(0, |message| message.stream_seq);
        let live = self.live(last).await;
        history.live = Some(live);
        Ok(history)
    }

    /// Lists the Jobs and marks those that are missing as deleted.
    ///
    /// # Errors
    /// If Kubernetes does not answer.
    pub async fn relist(&self) -> Result<(), String> {
        self.watch.relist().await
    }

    /// Reads the current state, in which missing results are no violations.
    ///
    /// # Errors
    /// If a stream cannot be read.
    pub async fn snapshot(&self) -> Result<History, String> {
        Ok(History { complete: false, ..self.read().await? })
    }

    async fn read(&self) -> Result<History, String> {
        let status = streams::read(&self.context, "JOB_STATUS", 0).await?;
        let rejected = streams::read(&self.context, "JOB_REJECTED", 0).await?;
        let (queued_requests, _) = streams::state(&self.context, "JOBS").await?;
        let times = Times {
            acknowledged: self.record.times(),
            published: status.iter().map(|stored| (stored.seq, stored.time)).collect(),
            rejected: rejected.iter().map(|stored| (stored.seq, stored.time)).collect(),
            finished: self.watch.ends(),
        };
        Ok(History {
            requests: self.record.all(),
            requests_complete: true,
            jobs: self.watch.jobs(),
            status: status.into_iter().map(Into::into).collect(),
            rejected: rejected.into_iter().map(Into::into).collect(),
            live: None,
            queued_requests,
            complete: true,
            ttls: self.ttls.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            times,
        })
    }

    /// Reads the events since the last call. The argument holds the last sequence and the uids with
    /// an outcome.
    async fn check_complete(&self, (read, done): &mut (u64, BTreeSet<String>)) -> Result<(), String> {
        match streams::state(&self.context, "JOBS").await? {
            (0, _) => {}
            (queued, _) => return Err(format!("{queued} messages are in JOBS")),
        }
        for message in streams::read(&self.context, "JOB_STATUS", *read).await? {
            let StatusMessage { stream_seq, event, .. } = message.into();
            *read = stream_seq;
            if let Some(uid) = event["uid"].as_str().filter(|_| event["type"] == "OUTCOME") {
                done.insert(uid.to_owned());
            }
        }
        self.check_outcomes(done)?;
        // Listing all Jobs is expensive, so it comes last. It may reveal further Jobs.
        self.watch.is_up_to_date().await?;
        self.check_outcomes(done)
    }

    /// Checks that every observed Job has its outcome and, if it exists, is retired.
    fn check_outcomes(&self, done: &BTreeSet<String>) -> Result<(), String> {
        let jobs = self.watch.jobs();
        let managed = || jobs.iter().filter(|job| job.managed);
        let missing: Vec<_> = managed().filter(|job| !done.contains(&job.uid)).collect();
        if let Some(job) = missing.first() {
            return Err(format!("{} Jobs without OUTCOME, such as {job}", missing.len()));
        }
        match managed().find(|job| !job.deleted && job.finish.is_final() && !job.retired) {
            Some(job) => Err(format!("{job} is not retired")),
            None => Ok(()),
        }
    }

    /// What the plain subscriber received, once it has received `last` or cannot any more.
    async fn live(&self, last: u64) -> Subscriber {
        let seen = || self.live.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let connects = || self.context.client().statistics().connects.load(Ordering::Relaxed);
        let stayed_connected = || connects() == self.connects && !self.gaps.load(Ordering::Relaxed);
        // The check reports missing messages.
        let _ = try_until("the plain subscriber", CATCH_UP_TIMEOUT, || async {
            let newest = seen().iter().filter_map(|message| message.sequence).max();
            (newest.unwrap_or(self.after) >= last || !stayed_connected()).then_some(())
        })
        .await;
        Subscriber { after: self.after, stayed_connected: stayed_connected(), messages: seen() }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.subscriber.abort();
    }
}
