//! Any faults in any mix, for as long as is asked for: two replicas behind a proxy of the API server and one of NATS, under a steady
//! load, on a control plane of its own. `make soak MINUTES=30`; a minute where nothing else is said.
//!
//! The seed decides which faults come, in which order and for how long; of those that come at once each meets another part.

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

/// Between two requests.
const PACE: Duration = Duration::from_millis(250);
/// What a fault lasts at most, in milliseconds: longer than a Lease.
const LONGEST: u64 = 15_000;

/// What a fault meets.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    First,
    Second,
    Nats,
    WayToNats,
    Cluster,
    WayToApi,
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    Killed(usize),
    Frozen(usize),
    Terminated(usize),
    NatsKilled,
    NatsPaused,
    ConsumerDeleted,
    Redelivered,
    NatsPartition,
    NatsHalfOpen,
    NatsSlow,
    ApiServerKilled,
    EtcdKilled,
    Compacted,
    JobsDeleted,
    LeaseDeleted,
    RightTaken,
    Storm(u16),
    DoneAndRefused,
    Breaks,
    Late,
    WatchStalled,
    WatchExpired,
    ApiPartition,
}

const FAULTS: [(Part, Fault); 28] = [
    (Part::First, Fault::Killed(0)),
    (Part::First, Fault::Frozen(0)),
    (Part::First, Fault::Terminated(0)),
    (Part::Second, Fault::Killed(1)),
    (Part::Second, Fault::Frozen(1)),
    (Part::Second, Fault::Terminated(1)),
    (Part::Nats, Fault::NatsKilled),
    (Part::Nats, Fault::NatsPaused),
    (Part::Nats, Fault::ConsumerDeleted),
    (Part::Nats, Fault::Redelivered),
    (Part::WayToNats, Fault::NatsPartition),
    (Part::WayToNats, Fault::NatsHalfOpen),
    (Part::WayToNats, Fault::NatsSlow),
    (Part::Cluster, Fault::ApiServerKilled),
    (Part::Cluster, Fault::EtcdKilled),
    (Part::Cluster, Fault::Compacted),
    (Part::Cluster, Fault::JobsDeleted),
    (Part::Cluster, Fault::JobsDeleted),
    (Part::Cluster, Fault::LeaseDeleted),
    (Part::Cluster, Fault::RightTaken),
    (Part::WayToApi, Fault::Storm(429)),
    (Part::WayToApi, Fault::Storm(503)),
    (Part::WayToApi, Fault::DoneAndRefused),
    (Part::WayToApi, Fault::Breaks),
    (Part::WayToApi, Fault::Late),
    (Part::WayToApi, Fault::WatchStalled),
    (Part::WayToApi, Fault::WatchExpired),
    (Part::WayToApi, Fault::ApiPartition),
];

/// The ways of the replicas.
struct Ways {
    api: ApiProxy,
    nats: NatsProxy,
}

struct Soak<'a> {
    scenario: &'a Scenario,
    ways: &'a Ways,
    kubernetes: &'a Kubernetes,
    begun: Instant,
}

impl Soak<'_> {
    fn replica(&self, number: usize) -> &Dispatcher {
        if number == 0 { &self.scenario.dispatcher } else { &self.scenario.replicas[0] }
    }

    /// One fault, from its beginning to its end.
    async fn meet(&self, fault: Fault, random: &mut Rng) {
        let lasts = Duration::from_millis(random.u64(50..LONGEST));
        let (begun, at) = (Instant::now(), self.begun.elapsed().as_secs());
        match fault {
            Fault::Killed(..) | Fault::Frozen(..) | Fault::Terminated(..) => {
                self.of_replica(fault, lasts).await
            }
            Fault::NatsKilled | Fault::NatsPaused | Fault::ConsumerDeleted | Fault::Redelivered => {
                self.of_nats(fault, lasts).await;
            }
            Fault::NatsPartition | Fault::NatsHalfOpen | Fault::NatsSlow => {
                match fault {
                    Fault::NatsPartition => self.ways.nats.partition(),
                    Fault::NatsHalfOpen => self.ways.nats.half_open(),
                    _ => self.ways.nats.slow(Duration::from_millis(random.u64(1..300)), 20_000),
                }
                sleep(lasts).await;
                self.ways.nats.heal();
            }
            Fault::ApiServerKilled
            | Fault::EtcdKilled
            | Fault::Compacted
            | Fault::JobsDeleted
            | Fault::LeaseDeleted
            | Fault::RightTaken => self.of_cluster(fault, lasts, random).await,
            _ => self.of_calls(fault, lasts, random).await,
        }
        println!("{at:>5} s: {fault:?}, {:.1} s", begun.elapsed().as_secs_f64());
    }

    async fn of_replica(&self, fault: Fault, lasts: Duration) {
        match fault {
            Fault::Killed(number) => {
                self.replica(number).kill().await;
                sleep(lasts).await;
                self.replica(number).keep_running().await;
            }
            Fault::Terminated(number) => {
                assert_eq!(self.replica(number).terminate().await, Some(0), "it ends as asked");
                self.replica(number).keep_running().await;
            }
            Fault::Frozen(number) => {
                self.replica(number).freeze().await;
                sleep(lasts).await;
                self.replica(number).resume().await;
            }
            _ => {}
        }
    }

    async fn of_nats(&self, fault: Fault, lasts: Duration) {
        let env = &self.scenario.env;
        match fault {
            Fault::NatsKilled => {
                env.nats.kill().await;
                sleep(lasts).await;
                env.nats.restart().await;
            }
            Fault::NatsPaused => {
                env.nats.pause().await;
                sleep(lasts).await;
                env.nats.unpause().await;
            }
            Fault::ConsumerDeleted => {
                if let Ok(stream) = env.jetstream.get_stream("JOBS").await {
                    // It is being made again by one that was deleted just before.
                    let _ = stream.delete_consumer("dispatcher-simple").await;
                }
            }
            _ => {
                // Not where the consumer is just being made again.
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

    async fn of_cluster(&self, fault: Fault, lasts: Duration, random: &mut Rng) {
        let namespace = &self.scenario.env.namespace;
        match fault {
            Fault::ApiServerKilled => {
                self.kubernetes.kill_apiserver().await;
                sleep(lasts).await;
                self.kubernetes.start_apiserver().await;
            }
            // The local cluster has none.
            Fault::EtcdKilled if kubernetes::is_local() => {}
            Fault::EtcdKilled => {
                self.kubernetes.kill_etcd().await;
                sleep(lasts).await;
                self.kubernetes.start_etcd().await;
            }
            Fault::Compacted => self.kubernetes.compact_etcd().await,
            Fault::LeaseDeleted => {
                let leases: Api<Lease> = Api::namespaced(namespace.client.clone(), &namespace.name);
                let _ = leases.delete("dispatcher", &DeleteParams::default()).await;
            }
            Fault::RightTaken => {
                let (verb, resource) = random
                    .choice([("create", "jobs"), ("patch", "jobs"), ("watch", "jobs"), ("update", "leases")])
                    .unwrap_or_default();
                namespace.revoke_on(verb, resource).await;
                sleep(lasts).await;
                namespace.grant_on(verb, resource).await;
            }
            _ => self.delete_jobs(random).await,
        }
    }

    /// Jobs of their own, which run until they are deleted, some at once.
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

    async fn of_calls(&self, fault: Fault, lasts: Duration, random: &mut Rng) {
        let faults = &self.ways.api.faults;
        let verb = random.choice(["create", "get", "list", "patch", "watch"]).unwrap_or_default();
        let (calls, watches) = (Calls::of(verb, "jobs"), Calls::of("watch", "jobs"));
        let times = random.u32(1..20);
        match fault {
            Fault::Storm(code) => faults.fail(calls, times, Failure::Code(code)),
            Fault::DoneAndRefused => faults.fail(Calls::of("create", "jobs"), times, Failure::CodeAfter(504)),
            Fault::Breaks => {
                faults.fail(calls.clone(), times, Failure::Break);
                faults.fail(calls, times, Failure::BreakAfter);
            }
            Fault::Late => faults.delay(calls, times, lasts.min(Duration::from_secs(12))),
            Fault::WatchExpired => faults.inject(watches, WatchFault::Error(410)),
            Fault::WatchStalled => {
                faults.set_behaviour(watches, Behaviour::Stall);
                sleep(lasts).await;
                faults.reset_behaviours();
            }
            _ => {
                faults.refuse_connections(true);
                sleep(lasts).await;
                faults.refuse_connections(false);
            }
        }
    }

    /// Faults, several at once, until the time is over.
    async fn faults(&self, until: Instant, random: &mut Rng) {
        let mut told = 0;
        while Instant::now() < until {
            let mut all = FAULTS;
            random.shuffle(&mut all);
            let mut met: Vec<(Part, Fault)> = vec![];
            for (part, fault) in all.into_iter().take(random.usize(1..4)) {
                if met.iter().all(|(other, _)| *other != part) {
                    met.push((part, fault));
                }
            }
            let met = met.into_iter().map(|(_, fault)| {
                let mut own = random.fork();
                async move { self.meet(fault, &mut own).await }
            });
            join_all(met.collect::<Vec<_>>()).await;
            sleep(Duration::from_millis(random.u64(..3000))).await;
            let minutes = self.begun.elapsed().as_secs() / 60;
            if minutes > told {
                told = minutes;
                println!(
                    "after {told} min: {} Jobs, {}",
                    self.scenario.job_count().await,
                    self.memory().await
                );
            }
        }
    }

    /// The largest memory of the replicas since their last start, and of this program with the recorder.
    async fn memory(&self) -> String {
        let [one, other] = [peak(self.replica(0).pid().await), peak(self.replica(1).pid().await)];
        format!("peak memory: replicas {one} and {other}, recorder {}", peak(std::process::id()))
    }

    async fn load(&self, until: Instant) -> usize {
        let mut ticks = tokio::time::interval(PACE);
        let ticks = stream::poll_fn(|context| ticks.poll_tick(context).map(Some));
        let requests = ticks.take_while(|_| async { Instant::now() < until }).enumerate();
        requests.map(|(n, _)| self.scenario.load(n, 1)).buffer_unordered(256).count().await
    }
}

/// `VmHWM` of a process.
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
        *shared.lock().unwrap() = Some(Arc::new(Ways { api, nats }));
        Ok(LoadTest::new(env).await)
    };
    repeat_on("any faults in any mix", start, async |scenario, random| {
        scenario.add_replica().await;
        // They stay until all is told.
        let ways: Arc<Ways> = shared.lock().unwrap().clone().unwrap();
        let begun = Instant::now();
        let until = begun + Duration::from_secs_f64(60.0 * minutes());
        let soak = Soak { scenario, ways: &ways, kubernetes: &kubernetes, begun };
        tokio::join!(soak.load(until), soak.faults(until, random).boxed());
        let ended = Instant::now();
        ways.api.faults.clear();
        ways.nats.heal();
        for number in 0..2 {
            soak.replica(number).keep_running().await;
        }
        scenario.recovered("both ready after all faults", ended);
        println!("{}", soak.memory().await);
        scenario.redeliver_now().await;
        scenario.env.until_queue_is_empty().await;
        // What waits was to be deleted and was not: its request was made into a Job only later, or nobody answered.
        let left = scenario.env.namespace.jobs.list(&ListParams::default()).await.unwrap();
        let names = left.into_iter().filter_map(|job| job.metadata.name);
        soak.delete(&names.filter(|name| name.starts_with("wait-")).collect::<Vec<_>>()).await;
    })
    .await;
}
