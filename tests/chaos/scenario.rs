//! The system of each test: a NATS, a namespace, a dispatcher under load, and a recorder.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_nats::jetstream::consumer::pull;
use dispatcher_tests::checker::History;
use dispatcher_tests::proxy::{ApiProxy, NatsProxy};
use dispatcher_tests::{Dispatcher, chaos, kubernetes, or_skip, until};
use fastrand::Rng;

use dispatcher_tests::load_test::{DRAIN_TIMEOUT, LoadTest, publish_named};
use dispatcher_tests::test_env::{Proxies, TestEnv};
use dispatcher_tests::wait::TIMEOUT;

/// The running system.
pub(crate) struct Scenario {
    pub(crate) run: LoadTest,
    /// The further replicas.
    pub(crate) replicas: Vec<Dispatcher>,
    recoveries: Mutex<BTreeMap<String, f64>>,
}

impl Deref for Scenario {
    type Target = LoadTest;

    fn deref(&self) -> &LoadTest {
        &self.run
    }
}

impl chaos::SystemUnderTest for Scenario {
    fn platform(&self) -> &'static str {
        if kubernetes::is_local() { "local cluster" } else { "Kubernetes" }
    }

    fn recoveries(&self) -> BTreeMap<String, f64> {
        self.recoveries.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn finish(self) -> Result<History, String> {
        self.run.recorder.finish(DRAIN_TIMEOUT).await
    }
}

/// Runs a scenario on the default system; see [`chaos::repeat`].
pub(crate) async fn repeat(fault: &str, inject: impl AsyncFn(&mut Scenario, &mut Rng)) {
    repeat_on(fault, async || LoadTest::start().await, inject).await;
}

/// Runs a scenario with proxies in front of the API server and NATS.
pub(crate) async fn repeat_behind_proxies(fault: &str, inject: impl AsyncFn(&mut Scenario, &mut Rng)) {
    let start = async || {
        let env = TestEnv::start().await?;
        let api = ApiProxy::start(&env.namespace.dispatcher_kubeconfig).await;
        let nats = NatsProxy::start(&env.nats.url).await;
        Ok(LoadTest::new(TestEnv { proxies: Some(Proxies { api, nats }), ..env }).await)
    };
    repeat_on(fault, start, inject).await;
}

/// Runs a scenario on another system.
pub(crate) async fn repeat_on(
    fault: &str,
    start: impl AsyncFn() -> Result<LoadTest, String>,
    inject: impl AsyncFn(&mut Scenario, &mut Rng),
) {
    if kubernetes::is_local() && std::env::var_os("CHAOS_RUNS").is_none() {
        println!("skipped on the local cluster without CHAOS_RUNS: `fault_injection` covers it");
        return;
    }
    let start = async || Ok(Scenario { run: start().await?, replicas: vec![], recoveries: Mutex::default() });
    or_skip!(chaos::repeat(fault, start, inject).await);
}

impl Scenario {
    /// Starts a further replica.
    pub(crate) async fn add_replica(&mut self) {
        let replica = self.run.start_replica().await;
        self.replicas.push(replica);
    }

    /// The proxy in front of the API server.
    pub(crate) fn api(&self) -> &ApiProxy {
        &self.run.env.proxies.as_ref().expect("the scenario has proxies").api
    }

    /// The proxy in front of NATS.
    pub(crate) fn nats(&self) -> &NatsProxy {
        &self.run.env.proxies.as_ref().expect("the scenario has proxies").nats
    }

    /// Starts a replica that connects directly.
    pub(crate) async fn replica_without_proxies(&self) -> Dispatcher {
        let builder = self.run.env.dispatcher_without_proxies();
        builder.templates(self.run.templates.path()).start().await
    }

    /// Records a recovery time; the longest of a run counts.
    pub(crate) fn recovered(&self, what: &str, since: Instant) {
        let took = since.elapsed().as_secs_f64();
        let mut recoveries = self.recoveries.lock().unwrap_or_else(PoisonError::into_inner);
        let longest = recoveries.entry(what.to_owned()).or_insert(took);
        *longest = longest.max(took);
    }

    /// Publishes a request and waits for an event of its Job, which shows that the system works.
    pub(crate) async fn until_works(&self, name: &str) {
        let sent = publish_named(&self.run.recorder, name).await;
        sent.unwrap_or_else(|error| panic!("{name}: {error}"));
        until(&format!("an event of {name}"), TIMEOUT, || async {
            self.run.env.last_event(name).await.ok_or("no event")
        })
        .await;
    }

    /// Makes the server redeliver unacknowledged requests now, as it would after `ack_wait` (60 s).
    pub(crate) async fn redeliver_now(&self) {
        // After some faults, JetStream has no leader for a moment.
        let get = || self.run.env.jetstream.get_stream("JOBS");
        let stream = until("the stream JOBS", TIMEOUT, get).await;
        let get = || stream.consumer_info("dispatcher-simple");
        let info = until("the consumer of JOBS", TIMEOUT, get).await;
        let set = async |ack_wait| {
            let config = async_nats::jetstream::consumer::Config { ack_wait, ..info.config.clone() };
            let config: pull::Config =
                async_nats::jetstream::consumer::FromConsumer::try_from_consumer_config(config).unwrap();
            until("an update of the consumer", TIMEOUT, || stream.update_consumer(config.clone())).await;
        };
        set(Duration::from_millis(100)).await;
        // The server redelivers 100 ms after the change; no API shows when it has done so.
        tokio::time::sleep(Duration::from_millis(600)).await;
        set(info.config.ack_wait).await;
    }
}
