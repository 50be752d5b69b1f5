//! The system of each test: a local cluster without pods, a NATS, a dispatcher under load, and a
//! recorder that checks the guarantees at the end.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::jetstream;
use dispatcher_tests::checker::{History, Recorder};
use dispatcher_tests::dispatcher::get;
use dispatcher_tests::{Nats, chaos, load_test, or_skip, ports, until};
use fastrand::Rng;
use k8s_openapi::api::batch::v1::Job;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use local_cluster::faults::Calls;
use local_cluster::{Faults, LocalCluster, Options};
use serde_json::{Value, json};

use crate::service::Service;
use dispatcher_tests::job_controller::JobController;
use dispatcher_tests::job_controller::{finished_status, managed_template};
use dispatcher_tests::test_env::shipped_config;
use dispatcher_tests::wait::TIMEOUT;

/// The namespace of the Jobs.
pub(crate) const JOBS: &str = "jobs";

/// The running system.
pub(crate) struct Scenario {
    pub(crate) faults: Faults,
    /// Exempt from faults.
    pub(crate) jobs: Api<Job>,
    pub(crate) recorder: Recorder,
    cluster: LocalCluster,
    jetstream: jetstream::Context,
    nats: Nats,
    service: Option<Service>,
    _controller: JobController,
    templates: tempfile::TempDir,
    /// The address of the admin server.
    admin: String,
}

impl Scenario {
    pub(crate) async fn start() -> Self {
        let options = Options {
            namespaces: vec![JOBS.to_owned()],
            bookmark_interval: Duration::from_millis(200),
            ..Options::default()
        };
        let cluster = LocalCluster::new(options);
        let nats = Nats::process().await;
        let jetstream = jetstream::new(nats.client().await);
        // The shortest deduplication window, so that no test depends on deduplication.
        for stream in ["JOBS", "JOB_STATUS", "JOB_REJECTED"] {
            let mut config = shipped_config(stream);
            config["duplicate_window"] = 100_000_000.into();
            let made: Value = jetstream.request(format!("STREAM.CREATE.{stream}"), &config).await.unwrap();
            assert!(made["error"].is_null(), "{made}");
        }
        let exempt = cluster.internal_client(JOBS);
        let recorder = Recorder::start(nats.client().await, exempt.clone(), JOBS).await.unwrap();
        recorder.expect_ttl("simple", Some(600));
        let jobs: Api<Job> = Api::default_namespaced(exempt);
        let (templates, _) = managed_template();
        let (faults, controller) = (cluster.faults(), JobController::start(jobs.clone()));
        let mut this = Self {
            faults,
            jobs,
            recorder,
            cluster,
            jetstream,
            nats,
            service: None,
            _controller: controller,
            templates,
            admin: format!("127.0.0.1:{}", ports::free()),
        };
        this.start_service();
        this
    }

    pub(crate) fn start_service(&mut self) {
        let templates = self.templates.path().display().to_string();
        let settings = ["--nats-url", &self.nats.url, "--templates", &templates, "--admin-addr", &self.admin];
        self.service = Some(Service::start(&self.cluster, JOBS, &settings));
    }

    /// Crashes the dispatcher at any await point and starts another one.
    ///
    /// NATS would redeliver unacknowledged requests only after `ack_wait`. So the consumer is
    /// deleted meanwhile, as an operator may do: the next start recreates it, which redelivers them
    /// immediately.
    pub(crate) async fn crash(&mut self) {
        self.service.take().expect("the service runs").crash().await;
        let stream = self.jetstream.get_stream("JOBS").await.unwrap();
        // It does not exist yet if the dispatcher crashed right after its start.
        let _ = stream.delete_consumer("dispatcher-simple").await;
        self.start_service();
    }

    /// Publishes the requests with the numbers `from..from + count`; see
    /// [`load_test::publish_load`].
    pub(crate) async fn load(&self, from: usize, count: usize) {
        load_test::publish_load(&self.recorder, from, count).await.unwrap();
    }

    /// Publishes requests for Jobs that run until [`Self::complete`].
    pub(crate) async fn request(&self, names: &[String]) {
        for name in names {
            load_test::publish_named(&self.recorder, name).await.unwrap();
        }
    }

    /// Completes a Job.
    pub(crate) async fn complete(&self, name: &str) {
        let patch = json!({"status": finished_status("Complete", 0, "CompletionsReached", "done")});
        self.jobs.patch_status(name, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    }

    /// Waits until the last event of a Job has this type, and returns the event.
    pub(crate) async fn until_last(&self, name: &str, type_: &str) -> Value {
        let stream = self.jetstream.get_stream_no_info("JOB_STATUS").await.unwrap();
        let subject = format!("jobs.simple.status.{name}");
        until(&format!("{type_} as the last event of {name}"), TIMEOUT, || async {
            let last = stream.get_last_raw_message_by_subject(&subject).await.map_err(|e| e.to_string())?;
            let event = dispatcher_tests::test_env::event(&last);
            if event["type"] == type_ { Ok(event) } else { Err(event.to_string()) }
        })
        .await
    }

    /// Waits for at least this many Jobs.
    pub(crate) async fn until_jobs(&self, count: usize) {
        until(&format!("{count} Jobs"), TIMEOUT, || async {
            self.assert_runs();
            let found = self.jobs.list(&ListParams::default()).await.unwrap().items.len();
            if found >= count { Ok(()) } else { Err(found) }
        })
        .await;
    }

    /// Why the dispatcher is not ready; `None` if it is.
    pub(crate) async fn not_ready(&self) -> Option<String> {
        let (status, body) = get(&self.admin, "/readyz").await.unwrap();
        (status != 200).then_some(body)
    }

    /// The number of dead letters with this reason.
    pub(crate) async fn rejections(&self, reason: &str) -> usize {
        let history = self.recorder.snapshot().await.unwrap();
        history.rejected.iter().filter(|letter| letter.header("Job-Error") == reason).count()
    }

    /// Waits until every injected failure of a call has occurred.
    pub(crate) async fn until_all_injected(&self) {
        until("every injected failure to occur", TIMEOUT, || async {
            match self.faults.remaining() {
                0 => Ok(()),
                count => Err(count),
            }
        })
        .await;
    }

    /// Deletes Jobs without a watch event. The dispatcher finds out by a relist, as after a
    /// compaction.
    pub(crate) async fn delete_silently(&self, names: &[String]) {
        for name in names {
            assert!(self.faults.delete_silently("jobs", JOBS, name), "{name} exists");
        }
        self.faults.forget_history();
        self.faults.inject(Calls::of("watch", "jobs"), local_cluster::faults::WatchFault::Error(410));
        self.recorder.relist().await.unwrap();
    }

    fn assert_runs(&self) {
        self.service.iter().for_each(Service::assert_runs);
    }
}

impl chaos::SystemUnderTest for Scenario {
    fn platform(&self) -> &'static str {
        "in process"
    }

    fn recoveries(&self) -> BTreeMap<String, f64> {
        BTreeMap::new()
    }

    /// Removes all faults first.
    async fn finish(mut self) -> Result<History, String> {
        self.faults.clear();
        self.assert_runs();
        let history = self.recorder.finish(TIMEOUT).await?;
        self.assert_runs();
        self.service.take().expect("the service runs").stop().await;
        Ok(history)
    }
}

/// Runs a scenario; see [`chaos::repeat`].
pub(crate) async fn repeat(fault: &str, inject: impl AsyncFn(&mut Scenario, &mut Rng)) {
    or_skip!(chaos::repeat(fault, async || Ok(Scenario::start().await), inject).await);
}
