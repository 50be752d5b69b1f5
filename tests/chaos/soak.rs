//! Soak test: random faults for some minutes (`make soak MINUTES=30`; default 1) on two replicas
//! with proxies, under constant load, with a separate control plane.
//!
//! The seed determines the faults, their order and durations. Concurrent faults affect different
//! targets.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dispatcher_tests::proxy::{ApiProxy, NatsProxy};
use dispatcher_tests::{Dispatcher, Kubernetes, Nats, Options, kubernetes, or_skip};
use fastrand::Rng;
use futures::future::join_all;
use futures::{FutureExt, StreamExt, stream};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::{DeleteParams, ListParams};
use local_cluster::faults::{Behaviour, Calls, Failure, WatchFault};
use serde_json::json;
use tokio::time::sleep;

use crate::scenario::{Scenario, repeat_on};
use dispatcher_tests::load_test::LoadTest;
use dispatcher_tests::test_env::TestEnv;

/// The interval between two requests.
const REQUEST_INTERVAL: Duration = Duration::from_millis(250);
/// The maximum duration of a fault in milliseconds: longer than a Lease.
const MAX_DURATION_MS: u64 = 15_000;

/// What a fault affects.
#[derive(Clone, Copy, PartialEq)]
enum Target {
    First,
    Second,
    Nats,
    NatsConnection,
    Cluster,
    ApiConnection,
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    Killed(usize),
    Frozen(usize),
    Terminated(usize),
    NatsKilled,
    NatsPaused,
    ConsumerDeleted,
    Redelivery,
    NatsPartition,
    NatsHalfOpen,
    NatsSlow,
    ApiServerKilled,
    EtcdKilled,
    Compacted,
    JobsDeleted,
    LeaseDeleted,
    PermissionRevoked,
    Storm(u16),
    CreateFailsAfterSuccess,
    ConnectionBreaks,
    SlowCalls,
    WatchStalled,
    WatchExpired,
    ApiPartition,
}

const FAULTS: [(Target, Fault); 28] = [
    (Target::First, Fault::Killed(0)),
    (Target::First, Fault::Frozen(0)),
    (Target::First, Fault::Terminated(0)),
    (Target::Second, Fault::Killed(1)),
    (Target::Second, Fault::Frozen(1)),
    (Target::Second, Fault::Terminated(1)),
    (Target::Nats, Fault::NatsKilled),
    (Target::Nats, Fault::NatsPaused),
    (Target::Nats, Fault::ConsumerDeleted),
    (Target::Nats, Fault::Redelivery),
    (Target::NatsConnection, Fault::NatsPartition),
    (Target::NatsConnection, Fault::NatsHalfOpen),
    (Target::NatsConnection, Fault::NatsSlow),
    (Target::Cluster, Fault::ApiServerKilled),
    (Target::Cluster, Fault::EtcdKilled),
    (Target::Cluster, Fault::Compacted),
    (Target::Cluster, Fault::JobsDeleted),
    (Target::Cluster, Fault::JobsDeleted),
    (Target::Cluster, Fault::LeaseDeleted),
    (Target::Cluster, Fault::PermissionRevoked),
    (Target::ApiConnection, Fault::Storm(429)),
    (Target::ApiConnection, Fault::Storm(503)),
    (Target::ApiConnection, Fault::CreateFailsAfterSuccess),
    (Target::ApiConnection, Fault::ConnectionBreaks),
    (Target::ApiConnection, Fault::SlowCalls),
    (Target::ApiConnection, Fault::WatchStalled),
    (Target::ApiConnection, Fault::WatchExpired),
    (Target::ApiConnection, Fault::ApiPartition),
];

/// The proxies of the replicas.
struct Connections {
    api: ApiProxy,
    nats: NatsProxy,
}

struct Soak<'a> {
    scenario: &'a Scenario,
    connections: &'a Connections,
    kubernetes: &'a Kubernetes,
    begin: Instant,
}

impl Soak<'_> {
    fn replica(&self, number: usize) -> &Dispatcher {
        if number == 0 { &self.scenario.dispatcher } else { &self.scenario.replicas[0] }
    }

    /// Injects a fault and removes it.
    async fn inject(&self, fault: Fault, random: &mut Rng) {
        let duration = Duration::from_millis(random.u64(50..MAX_DURATION_MS));
        let (begin, at) = (Instant::now(), self.begin.elapsed().as_secs());
        match fault {
            Fault::Killed(..) | Fault::Frozen(..) | Fault::Terminated(..) => {
                self.inject_into_replica(fault, duration).await;
            }
            Fault::NatsKilled | Fault::NatsPaused | Fault::ConsumerDeleted | Fault::Redelivery => {
                self.inject_into_nats(fault, duration).await;
            }
            Fault::NatsPartition | Fault::NatsHalfOpen | Fault::NatsSlow => {
                match fault {
                    Fault::NatsPartition => self.connections.nats.partition(),
                    Fault::NatsHalfOpen => self.connections.nats.half_open(),
                    _ => self.connections.nats.slow(Duration::from_millis(random.u64(1..300)), 20_000),
                }
                sleep(duration).await;
                self.connections.nats.heal();
            }
            Fault::ApiServerKilled
            | Fault::EtcdKilled
            | Fault::Compacted
            | Fault::JobsDeleted
            | Fault::LeaseDeleted
            | Fault::PermissionRevoked => self.inject_into_cluster(fault, duration, random).await,
            _ => self.inject_into_calls(fault, duration, random).await,
        }
        println!("{at:>5} s: {fault:?}, {:.1} s", begin.elapsed().as_secs_f64());
    }

    async fn inject_into_replica(&self, fault: Fault, duration: Duration) {
        match fault {
            Fault::Killed(number) => {
                self.replica(number).kill().await;
                sleep(duration).await;
                self.replica(number).keep_running().await;
            }
            Fault::Terminated(number) => {
                assert_eq!(self.replica(number).terminate().await, Some(0), "the replica exits gracefully");
                self.replica(number).keep_running().await;
            }
            Fault::Frozen(number) => {
                self.replica(number).freeze().await;
                sleep(duration).await;
                self.replica(number).resume().await;
            }
            _ => {}
        }
    }

    async fn inject_into_nats(&self, fault: Fault, duration: Duration) {
        let env = &self.scenario.env;
        match fault {
            Fault::NatsKilled => {
                env.nats.kill().await;
                sleep(duration).await;
                env.nats.restart().await;
            }
            Fault::NatsPaused => {
                env.nats.pause().await;
                sleep(duration).await;
                env.nats.unpause().await;
            }
            Fault::ConsumerDeleted => {
                if let Ok(stream) = env.jetstream.get_stream("JOBS").await {
                    // An error if the consumer is already deleted.
                    let _ = stream.delete_consumer("dispatcher-simple").await;
                }
            }
            _ => {
                // Skipped while the dispatcher recreates the consumer.
                if env.jetstream.get_stream("JOBS").await.is_ok() && self.has_consumer().await {
                    self.scenario.redeliver_now().await;
                }
            }
        }
    }

    async fn has_consumer(&self) -> bool {
        match self.scenario.env.jetstream.get_stream("JOBS").await {
            Ok(stream) => stream.consumer_info("dispatcher-simple").await.is_ok(),
            Err(_) => false,
        }
    }

    async fn inject_into_cluster(&self, fault: Fault, duration: Duration, random: &mut Rng) {
        let namespace = &self.scenario.env.namespace;
        match fault {
            Fault::ApiServerKilled => {
                self.kubernetes.kill_apiserver().await;
                sleep(duration).await;
                self.kubernetes.start_apiserver().await;
            }
            // The local cluster has no etcd.
            Fault::EtcdKilled if kubernetes::is_local() => {}
            Fault::EtcdKilled => {
                self.kubernetes.kill_etcd().await;
                sleep(duration).await;
                self.kubernetes.start_etcd().await;
            }
            Fault::Compacted => self.kubernetes.compact_etcd().await,
            Fault::LeaseDeleted => {
                let leases: Api<Lease> = Api::namespaced(namespace.client.clone(), &namespace.name);
                let _ = leases.delete("dispatcher", &DeleteParams::default()).await;
            }
            Fault::PermissionRevoked => {
                let (verb, resource) = random
                    .choice([("create", "jobs"), ("patch", "jobs"), ("watch", "jobs"), ("update", "leases")])
                    .unwrap_or_default();
                namespace.revoke_on(verb, resource).await;
                sleep(duration).await;
                namespace.grant_on(verb, resource).await;
            }
            _ => self.delete_jobs(random).await,
        }
    }

    /// Requests further Jobs and deletes them, some immediately.
    async fn delete_jobs(&self, random: &mut Rng) {
        let names: Vec<String> =
            (0..random.u32(1..6)).map(|_| format!("wait-{:x}", random.u64(..))).collect();
        for name in &names {
            let payload = json!({"foo": "x", "name": name}).to_string();
            let _ = self.scenario.recorder.publish("simple", payload, Some(&format!("of-{name}"))).await;
        }
        sleep(Duration::from_millis(random.u64(..2000))).await;
        self.delete(&names).await;
    }

    async fn delete(&self, names: &[String]) {
        for name in names {
            let _ = self.scenario.env.namespace.jobs.delete(name, &DeleteParams::background()).await;
        }
    }

    async fn inject_into_calls(&self, fault: Fault, duration: Duration, random: &mut Rng) {
        let faults = &self.connections.api.faults;
        let verb = random.choice(["create", "get", "list", "patch", "watch"]).unwrap_or_default();
        let (calls, watches) = (Calls::of(verb, "jobs"), Calls::of("watch", "jobs"));
        let times = random.u32(1..20);
        match fault {
            Fault::Storm(code) => faults.fail(calls, times, Failure::Code(code)),
            Fault::CreateFailsAfterSuccess => {
                faults.fail(Calls::of("create", "jobs"), times, Failure::CodeAfter(504));
            }
            Fault::ConnectionBreaks => {
                faults.fail(calls.clone(), times, Failure::Break);
                faults.fail(calls, times, Failure::BreakAfter);
            }
            Fault::SlowCalls => faults.delay(calls, times, duration.min(Duration::from_secs(12))),
            Fault::WatchExpired => faults.inject(watches, WatchFault::Error(410)),
            Fault::WatchStalled => {
                faults.set_behaviour(watches, Behaviour::Stall);
                sleep(duration).await;
                faults.reset_behaviours();
            }
            _ => {
                faults.refuse_connections(true);
                sleep(duration).await;
                faults.refuse_connections(false);
            }
        }
    }

    /// Injects up to three faults at a time until the deadline.
    async fn faults(&self, until: Instant, random: &mut Rng) {
        let mut reported = 0;
        while Instant::now() < until {
            let mut all = FAULTS;
            random.shuffle(&mut all);
            let mut chosen: Vec<(Target, Fault)> = vec![];
            for (target, fault) in all.into_iter().take(random.usize(1..4)) {
                if chosen.iter().all(|(other, _)| *other != target) {
                    chosen.push((target, fault));
                }
            }
            let chosen = chosen.into_iter().map(|(_, fault)| {
                let mut own = random.fork();
                async move { self.inject(fault, &mut own).await }
            });
            join_all(chosen.collect::<Vec<_>>()).await;
            sleep(Duration::from_millis(random.u64(..3000))).await;
            let minutes = self.begin.elapsed().as_secs() / 60;
            if minutes > reported {
                reported = minutes;
                println!(
                    "after {reported} min: {} Jobs, {}",
                    self.scenario.job_count().await,
                    self.memory().await
                );
            }
        }
    }

    /// The peak memory of the replicas since their start, and of this process with the recorder.
    async fn memory(&self) -> String {
        let [one, other] = [peak(self.replica(0).pid().await), peak(self.replica(1).pid().await)];
        format!("peak memory: replicas {one} and {other}, recorder {}", peak(std::process::id()))
    }

    async fn load(&self, until: Instant) -> usize {
        let mut ticks = tokio::time::interval(REQUEST_INTERVAL);
        let ticks = stream::poll_fn(|context| ticks.poll_tick(context).map(Some));
        let requests = ticks.take_while(|_| async { Instant::now() < until }).enumerate();
        requests.map(|(n, _)| self.scenario.load(n, 1)).buffer_unordered(256).count().await
    }
}

/// `VmHWM` of a process (proc(5)).
fn peak(pid: u32) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.map_or_else(|| "unknown".to_owned(), |found| found.trim().to_owned())
}

fn minutes() -> f64 {
    let given = std::env::var("SOAK_MINUTES").ok().filter(|text| !text.is_empty());
    given.map_or(1.0, |text| text.parse().expect("SOAK_MINUTES is a number"))
}

#[tokio::test(flavor = "multi_thread")]
async fn soak() {
    let kubernetes = or_skip!(Kubernetes::control_plane(Options::default()).await);
    let shared = Mutex::new(None);
    let start = async || {
        let mut env = TestEnv::new(Nats::start().await, kubernetes.namespace().await).await;
        let api = ApiProxy::start(&env.namespace.dispatcher_kubeconfig).await;
        let nats = NatsProxy::start(&env.nats.url).await;
        let set = |name: &str, value: String| (name.to_owned(), value);
        env.settings =
            vec![set("NATS_URL", nats.url.clone()), set("KUBECONFIG", api.kubeconfig.display().to_string())];
        *shared.lock().unwrap() = Some(Arc::new(Connections { api, nats }));
        Ok(LoadTest::new(env).await)
    };
    repeat_on("random concurrent faults", start, async |scenario, random| {
        scenario.add_replica().await;
        // The proxies live until the end of the run.
        let connections: Arc<Connections> = shared.lock().unwrap().clone().unwrap();
        let begin = Instant::now();
        let until = begin + Duration::from_secs_f64(60.0 * minutes());
        let soak = Soak { scenario, connections: &connections, kubernetes: &kubernetes, begin };
        tokio::join!(soak.load(until), soak.faults(until, random).boxed());
        let ended = Instant::now();
        connections.api.faults.clear();
        connections.nats.heal();
        for number in 0..2 {
            soak.replica(number).keep_running().await;
        }
        scenario.recovered("both replicas ready after all faults", ended);
        println!("{}", soak.memory().await);
        scenario.redeliver_now().await;
        scenario.env.until_queue_is_empty().await;
        // These Jobs should be deleted, but were created after the deletion, or it got no answer.
        let left = scenario.env.namespace.jobs.list(&ListParams::default()).await.unwrap();
        let names = left.into_iter().filter_map(|job| job.metadata.name);
        soak.delete(&names.filter(|name| name.starts_with("wait-")).collect::<Vec<_>>()).await;
    })
    .await;
}
