//! Records a run: start it before the first request, publish through it, finish it at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::jetstream::context::ContextBuilder;
use async_nats::jetstream::{self, Context};
use futures::StreamExt;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::history::{Expect, History, Live, LiveMessage, Request, StatusMessage, Times};
use super::publish::{self, PublishError, Record};
use super::streams;
use super::watch::JobWatch;
use crate::wait::try_until;

/// Between two looks at whether all is said.
const PAUSE: Duration = Duration::from_millis(200);
/// How long something too much may take to come once all that is due is there.
const TOO_MUCH: Duration = Duration::from_secs(1);
/// How long the streams may take to be read, and the plain subscriber to catch up.
const READ: Duration = Duration::from_secs(30);
const CATCH_UP: Duration = Duration::from_secs(5);

/// A running record.
#[derive(Debug)]
pub struct Recorder {
    context: Context,
    watch: JobWatch,
    record: Record,
    live: Arc<Mutex<Vec<LiveMessage>>>,
    after: u64,
    connects: u64,
    subscriber: JoinHandle<()>,
    ttls: Mutex<BTreeMap<String, Option<i32>>>,
    gaps: AtomicBool,
}

impl Recorder {
    /// Starts to watch and to listen; what comes after is seen. The client must belong to this recorder alone where a
    /// break of its connection matters, and to a user who sees everything.
    ///
    /// # Errors
    /// Where NATS or Kubernetes does not answer.
    pub async fn start(
        nats: async_nats::Client,
        kubernetes: kube::Client,
        namespace: &str,
    ) -> Result<Self, String> {
        let mut messages =
            nats.subscribe("jobs.*.status.*").await.map_err(|error| format!("subscribe: {error}"))?;
        nats.flush().await.map_err(|error| format!("flush: {error}"))?;
        let connects = nats.statistics().connects.load(Ordering::Relaxed);
        // Thousands of publishes may wait for their answers at once.
        let builder = ContextBuilder::default().timeout(publish::ANSWER).backpressure_on_inflight(true);
        let context: jetstream::Context = builder.build(nats);
        let (_, after) = streams::state(&context, "JOB_STATUS").await?;
        let live = Arc::new(Mutex::new(Vec::new()));
        let seen = live.clone();
        let subscriber = tokio::spawn(async move {
            while let Some(message) = messages.next().await {
                let header = |name: &str| message.headers.as_ref()?.get(name)?.as_str().parse().ok();
                seen.lock().unwrap_or_else(PoisonError::into_inner).push(LiveMessage {
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

    /// The TTL of a template's template, `None` where it has none; of a template never named here, any TTL is right.
    pub fn expect_ttl(&self, template: &str, ttl: Option<i32>) {
        self.ttls.lock().unwrap_or_else(PoisonError::into_inner).insert(template.to_owned(), ttl);
    }

    /// From now on the plain subscriber may miss messages: what a stream's leader has stored when it dies is republished by
    /// nobody.
    pub fn expect_gaps(&self) {
        self.gaps.store(true, Ordering::Relaxed);
    }

    /// Publishes a request and returns the sequence of its `PubAck`.
    ///
    /// It is tried again for a minute where that keeps the record true: while nobody listens, and after a lost answer
    /// if there is a `Nats-Msg-Id`.
    ///
    /// # Errors
    /// Where it was not acknowledged; the record tells what is known of it.
    pub async fn publish(
        &self,
        template: &str,
        payload: impl Into<Vec<u8>>,
        msg_id: Option<&str>,
    ) -> Result<u64, PublishError> {
        self.publish_expecting(template, payload, msg_id, Expect::Either).await
    }

    /// Like [`Recorder::publish`], where it is known what is to become of the request.
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

    /// Waits until `JOBS` is empty, every Job has its outcome and the finished ones are settled; then reads everything.
    /// At the deadline it reads all the same, and prints what was missing: [`super::check`] tells it too.
    ///
    /// # Errors
    /// Where the streams cannot be read.
    pub async fn finish(&self, deadline: Duration) -> Result<History, String> {
        let said = tokio::sync::Mutex::new((0, BTreeSet::new()));
        let rest = try_until("the end of all that was asked for", deadline, || async {
            let look = self.is_at_rest(&mut *said.lock().await).await;
            if look.is_err() {
                sleep(PAUSE).await;
            }
            look
        });
        if let Err(missing) = rest.await {
            println!("{missing}");
        }
        sleep(TOO_MUCH).await;
        let mut history = try_until("the streams", READ, || self.read()).await?;
        let last = history.status.last().map_or(0, |message| message.stream_seq);
        let live = self.live(last).await;
        history.live = Some(live);
        Ok(history)
    }

    /// Lists the Jobs: what is not there any more, though no event told of it, is gone.
    ///
    /// # Errors
    /// Where Kubernetes does not answer.
    pub async fn relist(&self) -> Result<(), String> {
        self.watch.relist().await
    }

    /// Reads everything as it is now, and judges nothing as missing yet.
    ///
    /// # Errors
    /// Where the streams cannot be read.
    pub async fn so_far(&self) -> Result<History, String> {
        Ok(History { at_rest: false, ..self.read().await? })
    }

    async fn read(&self) -> Result<History, String> {
        let status = streams::read(&self.context, "JOB_STATUS", 0).await?;
        let rejected = streams::read(&self.context, "JOB_REJECTED", 0).await?;
        let (jobs_stream_left, _) = streams::state(&self.context, "JOBS").await?;
        let times = Times {
            acknowledged: self.record.times(),
            said: status.iter().map(|stored| (stored.seq, stored.time)).collect(),
            rejected: rejected.iter().map(|stored| (stored.seq, stored.time)).collect(),
            ended: self.watch.ends(),
        };
        Ok(History {
            requests: self.record.all(),
            requests_complete: true,
            jobs: self.watch.jobs(),
            status: status.into_iter().map(Into::into).collect(),
            rejected: rejected.into_iter().map(Into::into).collect(),
            live: None,
            jobs_stream_left,
            at_rest: true,
            ttls: self.ttls.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            times,
        })
    }

    /// Reads what was said since the last look: up to which sequence, and the uids with an outcome.
    async fn is_at_rest(&self, (read, done): &mut (u64, BTreeSet<String>)) -> Result<(), String> {
        match streams::state(&self.context, "JOBS").await? {
            (0, _) => {}
            (left, _) => return Err(format!("{left} messages are in JOBS")),
        }
        for message in streams::read(&self.context, "JOB_STATUS", *read).await? {
            let StatusMessage { stream_seq, event, .. } = message.into();
            *read = stream_seq;
            if let Some(uid) = event["uid"].as_str().filter(|_| event["type"] == "OUTCOME") {
                done.insert(uid.to_owned());
            }
        }
        self.is_all_said(done)?;
        // A list of all Jobs is dear, and may bring some to light.
        self.watch.is_up_to_date().await?;
        self.is_all_said(done)
    }

    /// Whether each Job that was seen has its outcome and, where it is still there, is settled.
    fn is_all_said(&self, done: &BTreeSet<String>) -> Result<(), String> {
        let jobs = self.watch.jobs();
        let ours = || jobs.iter().filter(|job| job.ours);
        let silent: Vec<_> = ours().filter(|job| !done.contains(&job.uid)).collect();
        if let Some(job) = silent.first() {
            return Err(format!("{} Jobs have no OUTCOME, {job} for one", silent.len()));
        }
        match ours().find(|job| !job.deleted && job.ended.is_final() && !job.settled) {
            Some(job) => Err(format!("{job} is not settled")),
            None => Ok(()),
        }
    }

    /// What the plain subscriber saw, once it has seen up to `last` or cannot any more.
    async fn live(&self, last: u64) -> Live {
        let seen = || self.live.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let connects = || self.context.client().statistics().connects.load(Ordering::Relaxed);
        let unbroken = || connects() == self.connects && !self.gaps.load(Ordering::Relaxed);
        // One that missed the last messages is told by the check.
        let _ = try_until("the plain subscriber", CATCH_UP, || async {
            let newest = seen().iter().filter_map(|message| message.sequence).max();
            (newest.unwrap_or(self.after) >= last || !unbroken()).then_some(())
        })
        .await;
        Live { after: self.after, unbroken: unbroken(), messages: seen() }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.subscriber.abort();
    }
}
