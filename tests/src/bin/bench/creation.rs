//! `bench creation` and `bench pinned`: Jobs per second and CPU time per Job, compared to a bare
//! client with the same number of concurrent creates.
//!
//! The Jobs are suspended, so that no pods run. The bare client only creates. The dispatcher pulls,
//! validates, creates, stores the first event with the fence and acknowledges.

use std::collections::BTreeMap;
use std::time::Duration;

use dispatcher_tests::bare::{self, Burst};
use dispatcher_tests::{Kubernetes, Namespace, process, wait};
use kube::api::ListParams;
use serde_json::Value;
use tokio::time::sleep;

use crate::environment::{DEADLINE, IN_FLIGHT, Installation, Jobs, Program, Run, control_plane};
use crate::report::{BARE, Curve, Goal, OURS, Results, Row, at};
use crate::requests;

const BETWEEN_LISTS: Duration = Duration::from_secs(1);
/// The rounds of the benchmarks that take long.
const FEWER_ROUNDS: usize = 3;

/// The dispatcher or the bare client, in the title of a row.
const CLIENT: &str = "the client";
/// The processes of the control plane that work for a create.
const CONTROL_PLANE: [&str; 3] = ["apiserver", "etcd", "controller-manager"];
/// What one round of one side measured.
struct Measured {
    seconds: f64,
    /// That of the dispatcher or the bare client.
    cpu: Duration,
    /// That of the other processes, by name.
    others: BTreeMap<&'static str, Duration>,
}

/// The CPU time since a start, of processes with a name. Several processes can share a name.
struct Stopwatch(Vec<(&'static str, u32, Duration)>);

impl Stopwatch {
    fn start(processes: &[(&'static str, u32)]) -> Result<Self, String> {
        let started = processes.iter().map(|(name, pid)| Ok((*name, *pid, process::cpu_time(*pid)?)));
        started.collect::<Result<_, String>>().map(Self)
    }

    fn stop(&self) -> Result<BTreeMap<&'static str, Duration>, String> {
        let mut used: BTreeMap<&'static str, Duration> = BTreeMap::new();
        for (name, pid, before) in &self.0 {
            *used.entry(name).or_default() += process::cpu_time(*pid)?.saturating_sub(*before);
        }
        Ok(used)
    }
}

async fn control_plane_pids(kubernetes: &Kubernetes) -> Result<Vec<(&'static str, u32)>, String> {
    let mut pids = Vec::new();
    for name in CONTROL_PLANE {
        pids.push((name, kubernetes.pid(name).await?));
    }
    Ok(pids)
}

fn cpu_row(process: &str, work: &str) -> Row {
    Row::new(&format!("CPU time of {process} per Job, {work}"), "ms")
}

/// Everything shares all cores.
pub(crate) async fn shared(run: &Run) -> Result<Results, String> {
    let kubernetes = control_plane().await?;
    let rate = Row::new("Jobs created, 64 in flight, all on the same cores", "Jobs/s");
    let cpu = |process: &str| cpu_row(process, "request to acknowledged");
    let rows = (rate.goal(Goal::AtLeastOfBare(0.95)), cpu(CLIENT).goal(Goal::AtMost(0.22)));
    let rows = compare(run, &kubernetes, run.size.rounds, rows, cpu).await?;
    Ok(Results { rows, curves: vec![] })
}

/// The API server and etcd have a core of their own; everything else shares another one.
pub(crate) async fn pinned(run: &Run) -> Result<Results, String> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    if cores < 2 {
        return Err("needs two cores".to_owned());
    }
    // Children inherit it: the testbed, NATS, the dispatcher and the bare client.
    process::pin(std::process::id(), 1..2)?;
    let measured = measure_pinned(run).await;
    process::pin(std::process::id(), 0..cores)?;
    measured
}

async fn measure_pinned(run: &Run) -> Result<Results, String> {
    let kubernetes = control_plane().await?;
    for component in ["apiserver", "etcd"] {
        process::pin(kubernetes.pid(component).await?, 0..1)?;
    }
    let rate = Row::new(
        "Jobs created, 64 in flight, API server and etcd on one core, the rest on another",
        "Jobs/s",
    );
    let cpu = |process: &str| cpu_row(process, "API server and etcd on one core");
    let rows = (rate.goal(Goal::AtLeastOfBare(0.97)), cpu(CLIENT));
    let rows = compare(run, &kubernetes, run.size.rounds.min(FEWER_ROUNDS), rows, cpu).await?;
    Ok(Results { rows, curves: vec![] })
}

/// Runs the sides alternately, each round in the other order.
async fn compare(
    run: &Run,
    kubernetes: &Kubernetes,
    rounds: usize,
    (mut rate, mut cpu): (Row, Row),
    cpu_of: impl Fn(&str) -> Row,
) -> Result<Vec<Row>, String> {
    let mut others: BTreeMap<&str, Row> = BTreeMap::new();
    let mut sides: Vec<Option<&Program>> =
        [None].into_iter().chain(run.dispatchers.iter().map(Some)).collect();
    // Round 0 is a warm-up.
    for round in 0..=rounds {
        for side in &sides {
            let measured = match side {
                None => bare_client(kubernetes, run.size.jobs).await?,
                Some(program) => dispatchers(kubernetes, program, run.size.jobs, 1).await?,
            };
            let name = side.map_or(BARE, |program| program.side);
            let jobs = run.size.jobs as f64;
            println!("    round {round}: {name}: {:.0} Jobs/s", jobs / measured.seconds);
            if round > 0 {
                rate.add(name, jobs / measured.seconds);
                cpu.add(name, requests::milliseconds(measured.cpu) / jobs);
                for (process, used) in measured.others {
                    let row = others.entry(process).or_insert_with(|| cpu_of(process));
                    row.add(name, requests::milliseconds(used) / jobs);
                }
            }
        }
        sides.reverse();
    }
    Ok([rate, cpu].into_iter().chain(others.into_values()).collect())
}

async fn bare_client(kubernetes: &Kubernetes, count: usize) -> Result<Measured, String> {
    let namespace = kubernetes.namespace().await;
    let burst = Burst { job: Jobs::Suspended.manifest()?, count, in_flight: IN_FLIGHT };
    let stopwatch = Stopwatch::start(&control_plane_pids(kubernetes).await?)?;
    let measured = bare::burst(&namespace.dispatcher_kubeconfig, &namespace.name, &burst).await?;
    let others = stopwatch.stop()?;
    until_suspended(&namespace, count).await?;
    let cpu = Duration::from_secs_f64(measured.cpu_seconds);
    Ok(Measured { seconds: measured.seconds, cpu, others })
}

/// One side with this number of replicas; the CPU time is that of all replicas.
async fn dispatchers(
    kubernetes: &Kubernetes,
    program: &Program,
    count: usize,
    replicas: usize,
) -> Result<Measured, String> {
    let installation = Installation::new(kubernetes, Jobs::Suspended).await?;
    let in_flight = (IN_FLIGHT / replicas).to_string();
    let mut running = Vec::new();
    for _ in 0..replicas {
        let builder = installation.builder(program).env("DISPATCHER_CONCURRENCY", &in_flight);
        running.push(builder.try_start().await?);
    }
    let mut processes = control_plane_pids(kubernetes).await?;
    processes.push(("the publisher", std::process::id()));
    for node in &installation.nats.nodes {
        processes.push(("nats-server", node.pid().await));
    }
    for dispatcher in &running {
        processes.push((OURS, dispatcher.pid().await));
    }
    let stopwatch = Stopwatch::start(&processes)?;
    let seconds = requests::burst(&installation.context, 0..count).await?;
    let mut others = stopwatch.stop()?;
    let cpu = others.remove(OURS).unwrap_or_default();
    until_suspended(&installation.namespace, count).await?;
    Ok(Measured { seconds, cpu, others })
}

/// Waits until the Job controller has handled every Job, so that its work does not disturb the next
/// side.
async fn until_suspended(namespace: &Namespace, count: usize) -> Result<(), String> {
    wait::try_until("the Job controller to suspend every Job", DEADLINE, || async {
        // The list is large.
        sleep(BETWEEN_LISTS).await;
        let jobs = namespace.jobs.list(&ListParams::default()).await.map_err(|e| e.to_string())?;
        let suspended = |job: &&k8s_openapi::api::batch::v1::Job| {
            job.status.as_ref().is_some_and(|status| status.conditions.is_some())
        };
        let suspended = jobs.items.iter().filter(suspended).count();
        if suspended >= count { Ok(()) } else { Err(format!("{suspended} of {count} Jobs")) }
    })
    .await
}

/// Several replicas share the work and the number of concurrent creates.
pub(crate) async fn replicas(run: &Run) -> Result<Results, String> {
    let kubernetes = control_plane().await?;
    let mut rate = Curve::new("Jobs created by several replicas", "replicas", "Jobs/s");
    let mut cpu = Curve::new("CPU time of all replicas per Job", "replicas", "ms");
    for round in 0..=run.size.rounds.min(FEWER_ROUNDS) {
        for replicas in run.size.replicas {
            for program in &run.dispatchers {
                let measured = dispatchers(&kubernetes, program, run.size.jobs, *replicas).await?;
                if round > 0 {
                    let jobs = run.size.jobs as f64;
                    rate.add(program.side, *replicas, jobs / measured.seconds);
                    cpu.add(program.side, *replicas, requests::milliseconds(measured.cpu) / jobs);
                }
            }
        }
    }
    Ok(Results { rows: vec![], curves: vec![rate, cpu] })
}

/// `bench single`: one request at a time, and one bare create at a time, by turns.
pub(crate) async fn single(run: &Run) -> Result<Results, String> {
    let kubernetes = control_plane().await?;
    let namespace = kubernetes.namespace().await;
    let client = bare::Client::new(&namespace.dispatcher_kubeconfig, &namespace.name)?;
    let manifest: Value = Jobs::Suspended.manifest()?;
    let mut callers = Vec::new();
    for program in &run.dispatchers {
        let installation = Installation::new(&kubernetes, Jobs::Suspended).await?;
        let dispatcher = installation.start(program).await?;
        let caller = requests::Caller::new(&installation.nats, "single").await?;
        callers.push((program.side, caller, dispatcher, installation));
    }
    let title = "publish until ADDED is received, or a bare create, one at a time";
    let mut p50 = Row::new(&format!("{title}, p50"), "ms").goal(Goal::AboveBare(0.5));
    let mut p99 = Row::new(&format!("{title}, p99"), "ms").goal(Goal::AboveBare(2.0));
    for round in 0..=run.size.rounds {
        let mut times: Vec<(&str, Vec<f64>)> = vec![(BARE, vec![])];
        times.extend(callers.iter().map(|caller| (caller.0, vec![])));
        for n in 0..run.size.single {
            let job = bare::named(&manifest, &format!("single-{round}-{n}"))?;
            let start = std::time::Instant::now();
            client.create(&job).await?;
            let mut measured = vec![requests::milliseconds(start.elapsed())];
            for (_, caller, ..) in &mut callers {
                measured.push(caller.call().await?);
            }
            times.iter_mut().zip(measured).for_each(|((_, all), time)| all.push(time));
        }
        for (side, all) in times.iter().filter(|_| round > 0) {
            p50.add(side, at(all, 0.5));
            p99.add(side, at(all, 0.99));
        }
    }
    Ok(Results { rows: vec![p50, p99], curves: vec![] })
}
