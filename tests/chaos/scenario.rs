//! What each fault is played on: a NATS and a namespace of its own, a dispatcher at work, and a recorder.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_nats::jetstream::consumer::pull;
use dispatcher_tests::checker::History;
use dispatcher_tests::proxy::{ApiProxy, NatsProxy};
use dispatcher_tests::{Dispatcher, chaos, kubernetes, or_skip, until};
use fastrand::Rng;

use dispatcher_tests::load_test::{DRAIN_TIMEOUT, LoadTest};
use dispatcher_tests::test_env::{Proxies, TestEnv};
use dispatcher_tests::wait::TIMEOUT;

/// See the module.
pub(crate) struct Scenario {
    pub(crate) run: LoadTest,
    /// Beside the first; they live as long as the scenario.
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

/// Plays a fault on a scenario with all that a usual run has; see [`chaos::repeat`].
pub(crate) async fn repeat(fault: &str, play: impl AsyncFn(&mut Scenario, &mut Rng)) {
    repeat_on(fault, async || LoadTest::start().await, play).await;
}

/// The same with proxies between the dispatcher and its two systems.
pub(crate) async fn repeat_behind_proxies(fault: &str, play: impl AsyncFn(&mut Scenario, &mut Rng)) {
    let start = async || {
        let env = TestEnv::start().await?;
        let api = ApiProxy::start(&env.namespace.dispatcher_kubeconfig).await;
        let nats = NatsProxy::start(&env.nats.url).await;
        Ok(LoadTest::new(TestEnv { proxies: Some(Proxies { api, nats }), ..env }).await)
    };
    repeat_on(fault, start, play).await;
}

/// The same on a run that is made otherwise.
pub(crate) async fn repeat_on(
    fault: &str,
    start: impl AsyncFn() -> Result<LoadTest, String>,
    play: impl AsyncFn(&mut Scenario, &mut Rng),
) {
    if kubernetes::is_local() && std::env::var_os("CHAOS_RUNS").is_none() {
        println!(
            "not on the local cluster, unless asked for by CHAOS_RUNS: the suite `faults` has its own ways there"
        );
        return;
    }
    let start = async || Ok(Scenario { run: start().await?, replicas: vec![], recoveries: Mutex::default() });
    or_skip!(chaos::repeat(fault, start, play).await);
}

impl Scenario {
    /// Starts a further replica.
    pub(crate) async fn add_replica(&mut self) {
        let replica = self.run.start_replica().await;
        self.replicas.push(replica);
    }

    /// The proxy before the API server.
    pub(crate) fn api(&self) -> &ApiProxy {
        &self.run.env.proxies.as_ref().expect("behind proxies").api
    }

    /// The proxy before NATS.
    pub(crate) fn nats(&self) -> &NatsProxy {
        &self.run.env.proxies.as_ref().expect("behind proxies").nats
    }

    /// Another replica, that nothing goes wrong for.
    pub(crate) async fn replica_without_proxies(&self) -> Dispatcher {
        let builder = self.run.env.dispatcher_without_proxies();
        builder.templates(self.run.templates.path()).start().await
    }

    /// Notes how long something took to be as before; the longest of a run counts.
    pub(crate) fn recovered(&self, what: &str, since: Instant) {
        let took = since.elapsed().as_secs_f64();
        let mut recoveries = self.recoveries.lock().unwrap_or_else(PoisonError::into_inner);
        let longest = recoveries.entry(what.to_owned()).or_insert(took);
        *longest = longest.max(took);
    }

    /// Has one request made now, and waits until its Job's `ADDED` is stored: then all works again.
    pub(crate) async fn until_works(&self, name: &str) {
        let payload = format!(r#"{{"foo":"x","name":"{name}"}}"#);
        let sent = self.run.recorder.publish("simple", payload, Some(&format!("of-{name}"))).await;
        sent.unwrap_or_else(|error| panic!("{name}: {error}"));
        until(&format!("an event of {name}"), TIMEOUT, || async {
            self.run.env.last_event(name).await.ok_or("nothing is said")
        })
        .await;
    }

    /// Has the server deliver again what is not acknowledged, as it would after `ack_wait`, a minute later.
    pub(crate) async fn redeliver_now(&self) {
        let stream = self.run.env.jetstream.get_stream("JOBS").await.unwrap();
        let info = stream.consumer_info("dispatcher-simple").await.unwrap();
        let set = async |ack_wait| {
            let config = async_nats::jetstream::consumer::Config { ack_wait, ..info.config.clone() };
            let config: pull::Config =
                async_nats::jetstream::consumer::FromConsumer::try_from_consumer_config(config).unwrap();
            stream.update_consumer(config).await.unwrap();
        };
        set(Duration::from_millis(100)).await;
        // Nothing shows that the server has looked at its pending messages: it does so 100 ms after the change.
        tokio::time::sleep(Duration::from_millis(600)).await;
        set(info.config.ack_wait).await;
    }
}
