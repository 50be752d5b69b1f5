//! A dispatcher under load, with a recorder that checks the guarantees at the end.

use std::path::PathBuf;
use std::time::Duration;

use futures::{StreamExt, stream};
use kube::api::ListParams;
use serde_json::json;
use tempfile::TempDir;

use crate::checker::{PublishError, Recorder, assert_guarantees};
use crate::dispatcher::{Builder, Dispatcher};
use crate::job_controller::{JobController, finished_status, managed_template};
use crate::test_env::TestEnv;
use crate::wait::{TIMEOUT, until};

/// How long all work may take to finish after the load. It exceeds `ack_wait`, after which NATS
/// redelivers unacknowledged requests.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(300);

/// How many requests are published at a time.
const CONCURRENCY: usize = 64;

/// A running dispatcher, a controller that ends its Jobs, and a recorder.
pub struct LoadTest {
    /// Where it runs.
    pub env: TestEnv,
    /// The first replica.
    pub dispatcher: Dispatcher,
    /// Records every request, event and Job.
    pub recorder: Recorder,
    _controller: JobController,
    /// The folder of the template.
    pub templates: TempDir,
}

impl LoadTest {
    /// Starts a dispatcher in a new environment.
    ///
    /// # Errors
    /// If this machine cannot run Kubernetes.
    pub async fn start() -> Result<Self, String> {
        Ok(Self::new(TestEnv::start().await?).await)
    }

    /// Starts a dispatcher in this environment.
    ///
    /// # Panics
    /// If the dispatcher or the recorder does not start.
    pub async fn new(env: TestEnv) -> Self {
        Self::of(env, |builder| builder).await
    }

    /// Starts another program, such as an older version, in this environment.
    ///
    /// # Panics
    /// As [`Self::new`].
    pub async fn of_program(env: TestEnv, program: PathBuf) -> Self {
        Self::of(env, |builder| builder.program(program)).await
    }

    async fn of(env: TestEnv, configure: impl FnOnce(Builder) -> Builder) -> Self {
        env.create_streams_without_deduplication().await;
        let (folder, templates) = managed_template();
        let dispatcher = configure(env.dispatcher().templates(templates)).start().await;
        let (nats, kube) = (env.nats.client().await, env.namespace.client.clone());
        let recorder = Recorder::start(nats, kube, &env.namespace.name).await.unwrap();
        recorder.expect_ttl("simple", Some(600));
        let controller = JobController::start(env.namespace.jobs.clone());
        Self { env, dispatcher, recorder, _controller: controller, templates: folder }
    }

    /// Starts another replica.
    pub async fn start_replica(&self) -> Dispatcher {
        self.replica().start().await
    }

    /// Builds another replica.
    #[must_use]
    pub fn replica(&self) -> Builder {
        self.env.dispatcher().templates(self.templates.path())
    }

    /// Publishes the requests with the numbers `from..from + count`; see [`publish_load`].
    pub async fn load(&self, from: usize, count: usize) {
        // A publish without an ack is recorded as such; the check accepts either result.
        drop(publish_load(&self.recorder, from, count).await);
    }

    /// Publishes a request for the Job `name` and waits until its last event has this type.
    ///
    /// # Panics
    /// If the request is not stored.
    pub async fn request(&self, name: &str, type_: &str) {
        publish_named(&self.recorder, name).await.unwrap();
        self.env.until_last(name, type_).await;
    }

    /// Waits until all work has finished, then checks the guarantees.
    ///
    /// # Panics
    /// If one does not hold.
    pub async fn finish(self) {
        let history = self.recorder.finish(DRAIN_TIMEOUT).await.unwrap();
        assert!(!history.requests.is_empty(), "no request was recorded");
        assert_guarantees(&history);
    }

    /// The number of Jobs; 0 if the API server does not answer.
    pub async fn job_count(&self) -> usize {
        self.env.namespace.jobs.list(&ListParams::default()).await.map_or(0, |list| list.items.len())
    }

    /// Waits for at least this many Jobs.
    pub async fn until_jobs(&self, count: usize) {
        until(&format!("{count} Jobs"), TIMEOUT, || async {
            let found = self.job_count().await;
            if found >= count { Ok(()) } else { Err(found) }
        })
        .await;
    }

    /// Completes pending Jobs.
    pub async fn complete(&self, names: &[&str]) {
        for name in names {
            let status = finished_status("Complete", 0, "CompletionsReached", "done");
            self.env.set_status(name, status).await;
        }
    }

    /// Waits until `/readyz` fails with an answer that contains `reason`.
    pub async fn until_not_ready(&self, reason: &str) {
        until(&format!("/readyz to fail with {reason:?}"), TIMEOUT, || async {
            let answer = self.dispatcher.get("/readyz").await?;
            let expected = answer.0 == 503 && answer.1.contains(reason);
            if expected { Ok(()) } else { Err(format!("{answer:?}")) }
        })
        .await;
    }

    /// Waits until `/readyz` succeeds.
    pub async fn until_ready(&self) {
        until("/readyz to succeed", TIMEOUT, || async {
            let answer = self.dispatcher.get("/readyz").await?;
            if answer.0 == 200 { Ok(()) } else { Err(format!("{answer:?}")) }
        })
        .await;
    }
}

/// Publishes the requests with the numbers `from..from + count` concurrently, each with a request
/// id. Of twenty requests, two are for Jobs that fail and one is invalid.
///
/// # Errors
/// The errors of publishing.
pub async fn publish_load(recorder: &Recorder, from: usize, count: usize) -> Result<(), PublishError> {
    let requests = (from..from + count).map(|n| async move {
        let value = match n % 20 {
            3 | 13 => json!(format!("fail-{n}")),
            _ if is_invalid(n) => json!(7),
            _ => json!(format!("{n}")),
        };
        let payload = json!({ "foo": value }).to_string();
        recorder.publish("simple", payload, Some(&format!("request-{n}"))).await
    });
    let results: Vec<_> = stream::iter(requests).buffer_unordered(CONCURRENCY).collect().await;
    results.into_iter().try_for_each(|result| result.map(drop))
}

/// The number of Jobs that [`publish_load`] with `0..count` leads to.
#[must_use]
pub fn jobs_of_load(count: usize) -> usize {
    (0..count).filter(|n| !is_invalid(*n)).count()
}

fn is_invalid(n: usize) -> bool {
    n % 20 == 7
}

/// Publishes a request for the Job `name`.
///
/// # Errors
/// If the request is not stored.
pub async fn publish_named(recorder: &Recorder, name: &str) -> Result<(), PublishError> {
    let payload = json!({"foo": "x", "name": name}).to_string();
    recorder.publish("simple", payload, Some(&format!("of-{name}"))).await.map(drop)
}
