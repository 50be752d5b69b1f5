//! What each test starts with: a local cluster without pods, a NATS, a dispatcher at work, and a recorder that judges the
//! promises at the end.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::jetstream;
use dispatcher_tests::checker::{History, Recorder};
use dispatcher_tests::{Nats, chaos, or_skip, until};
use fastrand::Rng;
use futures::{StreamExt, stream};
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

/// See the module.
pub(crate) struct Scenario {
    pub(crate) faults: Faults,
    /// Struck by no fault.
    pub(crate) jobs: Api<Job>,
    pub(crate) recorder: Recorder,
    cluster: LocalCluster,
    jetstream: jetstream::Context,
    nats: Nats,
    service: Option<Service>,
    _controller: JobController,
    templates: tempfile::TempDir,
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
        // With the shortest deduplication window that there is, so that nothing can lean on it.
        for stream in ["JOBS", "JOB_STATUS", "JOB_REJECTED"] {
            let mut config = shipped_config(stream);
            config["duplicate_window"] = 100_000_000.into();
            let made: Value = jetstream.request(format!("STREAM.CREATE.{stream}"), &config).await.unwrap();
            assert!(made["error"].is_null(), "{made}");
        }
        let unstruck = cluster.internal_client(JOBS);
        let recorder = Recorder::start(nats.client().await, unstruck.clone(), JOBS).await.unwrap();
        recorder.expect_ttl("simple", Some(600));
        let jobs: Api<Job> = Api::default_namespaced(unstruck);
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
        };
        this.start_service();
        this
    }

    pub(crate) fn start_service(&mut self) {
        let templates = self.templates.path().display().to_string();
        let settings = ["--nats-url", &self.nats.url, "--templates", &templates];
        self.service = Some(Service::start(&self.cluster, JOBS, &settings));
    }

    /// Ends the dispatcher at whichever await points it is, and starts another.
    ///
    /// What it had taken and not answered would come again after `ack_wait`, a minute later. So the consumer is removed
    /// meanwhile, as an operator may do: the next start makes it anew, and all that is not acknowledged comes again at once.
    pub(crate) async fn crash(&mut self) {
        self.service.take().expect("it runs").crash();
        let stream = self.jetstream.get_stream("JOBS").await.unwrap();
        // There is none yet where it crashed right after its start.
        let _ = stream.delete_consumer("dispatcher-simple").await;
        self.start_service();
    }

    /// Requests at once, each with an identity, every tenth of a Job that fails and every twentieth a bad one.
    pub(crate) async fn load(&self, from: usize, count: usize) {
        let requests = (from..from + count).map(|n| async move {
            let value = match n % 20 {
                7 => json!(7),
                3 | 13 => json!(format!("fail-{n}")),
                _ => json!(format!("{n}")),
            };
            let payload = json!({ "foo": value }).to_string();
            self.recorder.publish("simple", payload, Some(&format!("request-{n}"))).await.unwrap();
        });
        stream::iter(requests).buffer_unordered(64).collect::<Vec<()>>().await;
    }

    /// Requests of Jobs that run until [`Self::end`].
    pub(crate) async fn request(&self, names: &[String]) {
        for name in names {
            let payload = json!({"foo": "x", "name": name}).to_string();
            self.recorder.publish("simple", payload, Some(&format!("of-{name}"))).await.unwrap();
        }
    }

    /// Says of a Job that it is complete.
    pub(crate) async fn end(&self, name: &str) {
        let patch = json!({"status": finished_status("Complete", 0, "CompletionsReached", "done")});
        self.jobs.patch_status(name, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    }

    /// The event of type `type_` as a Job's last one, waited for.
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

    /// Waits until so many Jobs were created.
    pub(crate) async fn until_jobs(&self, count: usize) {
        until(&format!("{count} Jobs"), TIMEOUT, || async {
            self.assert_runs();
            let found = self.jobs.list(&ListParams::default()).await.unwrap().items.len();
            if found >= count { Ok(()) } else { Err(found) }
        })
        .await;
    }

    /// Waits until every fault of calls has struck.
    pub(crate) async fn until_struck(&self) {
        until("every fault to have struck", TIMEOUT, || async {
            match self.faults.remaining() {
                0 => Ok(()),
                left => Err(left),
            }
        })
        .await;
    }

    /// Removes Jobs without an event, and lets the dispatcher find out as it would after a compaction.
    pub(crate) async fn vanish(&self, names: &[String]) {
        for name in names {
            assert!(self.faults.delete_silently("jobs", JOBS, name), "{name} was there");
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

    /// Ends all faults first.
    async fn finish(mut self) -> Result<History, String> {
        self.faults.clear();
        self.assert_runs();
        let history = self.recorder.finish(TIMEOUT).await?;
        self.assert_runs();
        self.service.take().expect("it runs").stop().await;
        Ok(history)
    }
}

/// Plays a fault; see [`chaos::repeat`].
pub(crate) async fn repeat(fault: &str, play: impl AsyncFn(&mut Scenario, &mut Rng)) {
    or_skip!(chaos::repeat(fault, async || Ok(Scenario::start().await), play).await);
}
