//! `bench memory`: the dispatcher's memory when idle, with a long queue, and while NATS does not
//! answer and many Jobs change.

use std::time::{Duration, Instant};

use async_nats::jetstream::{self, context::ContextBuilder};
use dispatcher_tests::{Dispatcher, Kubernetes, Namespace, Nats, Options, paths, until};
use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::ResourceQuota;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::requests::publish;
use crate::{IN_FLIGHT, shipped};

/// The number of requests and Jobs.
const COUNT: usize = 10_000;
/// The states that each Job passes while NATS does not answer; the last one is final.
const STATES: usize = 4;
const DEADLINE: Duration = Duration::from_secs(600);
/// How long the dispatcher is idle before a measurement.
const IDLE_TIME: Duration = Duration::from_secs(5);

pub(crate) async fn run() -> Result<(), String> {
    let kubernetes = Kubernetes::control_plane(Options::default()).await?;
    let (namespace, nats) = (kubernetes.namespace().await, Nats::process().await);
    let folder = paths::temp_dir("bench")?;
    // The benchmark sets the status of the Jobs in place of Kubernetes' controller.
    let spec = "    backoffLimit: 3\n";
    let managed = shipped()?.replace(spec, &format!("{spec}    managedBy: tests.example.org/controller\n"));
    std::fs::write(folder.path().join("simple.yaml"), managed).map_err(|error| error.to_string())?;
    let dispatcher = Dispatcher::builder(&nats, &namespace).templates(folder.path()).env("RUST_LOG", "warn");
    let dispatcher = dispatcher.try_start().await?;
    let context =
        ContextBuilder::default().timeout(DEADLINE).backpressure_on_inflight(true).build(nats.client().await);
    println!("Resident memory of the dispatcher, MiB                            now    peak");
    sleep(IDLE_TIME).await;
    print("idle", &dispatcher).await?;
    assert_eq!(dispatcher.terminate().await, Some(0));

    set_quota(&namespace, 0).await?;
    let sent = stream::iter(0..COUNT).map(|n| publish(&context, n)).buffer_unordered(256);
    sent.collect::<Vec<_>>().await.into_iter().collect::<Result<(), String>>()?;
    dispatcher.restart().await;
    sleep(IDLE_TIME * 3).await;
    print("10,000 requests queued by an exhausted quota", &dispatcher).await?;
    set_quota(&namespace, COUNT * 2).await?;
    until_stored(&context, "JOBS", |state| state.messages == 0).await;
    print("quota raised: all requests become Jobs", &dispatcher).await?;

    assert_eq!(dispatcher.terminate().await, Some(0));
    dispatcher.restart().await;
    sleep(IDLE_TIME).await;
    print("restarted with 10,000 unfinished Jobs", &dispatcher).await?;
    nats.pause().await;
    let begun = Instant::now();
    change_all(&namespace).await?;
    print(
        &format!("NATS frozen, each Job passes {STATES} states ({:.0} s)", begun.elapsed().as_secs_f64()),
        &dispatcher,
    )
    .await?;
    nats.unpause().await;
    // Each Job has an ADDED and an OUTCOME at least; a retired Job has no further events.
    until("every outcome to be stored", DEADLINE, || outcomes(&namespace)).await;
    print("NATS resumed, every outcome published", &dispatcher).await?;
    sleep(IDLE_TIME * 2).await;
    print("some seconds later", &dispatcher).await
}

/// `VmRSS` and `VmHWM` of `/proc/<pid>/status` (proc(5)); resets the peak.
async fn print(what: &str, dispatcher: &Dispatcher) -> Result<(), String> {
    let folder = format!("/proc/{}", dispatcher.pid().await);
    let path = format!("{folder}/status");
    let status = std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    let field = |name: &str| -> Option<f64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
        Some(kib / 1024.0)
    };
    let (now, peak) = field("VmRSS").zip(field("VmHWM")).ok_or_else(|| format!("{path}: {status}"))?;
    println!("  {what:<62} {now:>5.1}  {peak:>6.1}");
    std::fs::write(format!("{folder}/clear_refs"), "5")
        .map_err(|error| format!("{folder}/clear_refs: {error}"))
}

async fn set_quota(namespace: &Namespace, jobs: usize) -> Result<(), String> {
    let quotas: Api<ResourceQuota> = Api::namespaced(namespace.client.clone(), &namespace.name);
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"},
                       "spec": {"hard": {"count/jobs.batch": jobs.to_string()}}});
    if quotas.get_opt("q").await.map_err(|error| error.to_string())?.is_some() {
        let patched = quotas.patch("q", &PatchParams::default(), &Patch::Merge(quota)).await;
        return patched.map(drop).map_err(|error| error.to_string());
    }
    let quota = serde_json::from_value(quota).map_err(|error| error.to_string())?;
    quotas.create(&PostParams::default(), &quota).await.map_err(|error| error.to_string())?;
    until("the quota to be counted", DEADLINE, || async {
        quotas.get("q").await.ok()?.status?.used.map(drop)
    })
    .await;
    Ok(())
}

async fn until_stored(
    context: &jetstream::Context,
    stream: &str,
    enough: impl Fn(&jetstream::stream::State) -> bool,
) {
    until(&format!("stream {stream}"), DEADLINE, || async {
        let stream = context.get_stream(stream).await.map_err(|error| error.to_string())?;
        let state = &stream.cached_info().state;
        if enough(state) { Ok(()) } else { Err(format!("{} messages", state.messages)) }
    })
    .await;
}

/// Takes every Job through its states, as a controller does.
async fn change_all(namespace: &Namespace) -> Result<(), String> {
    let changes = stream::iter(0..COUNT).map(|n| change(namespace, n)).buffer_unordered(IN_FLIGHT);
    changes.collect::<Vec<_>>().await.into_iter().collect()
}

async fn change(namespace: &Namespace, number: usize) -> Result<(), String> {
    let name = format!("simple-job-{number}");
    for state in 1..=STATES {
        let patch = Patch::Merge(json!({"status": status(state)}));
        let patched = namespace.jobs.patch_status(&name, &PatchParams::default(), &patch).await;
        patched.map_err(|error| format!("{name}: {error}"))?;
    }
    Ok(())
}

fn status(state: usize) -> Value {
    let now = k8s_openapi::jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let condition = |type_: &str| {
        json!({"type": type_, "status": "True", "reason": "BackoffLimitExceeded",
               "message": "Job has reached the specified backoff limit", "lastProbeTime": now, "lastTransitionTime": now})
    };
    let start = "2026-01-01T00:00:00Z";
    if state < STATES {
        return json!({"startTime": start, "active": 1, "ready": state % 2, "failed": state - 1, "terminating": 0});
    }
    json!({"startTime": start, "failed": state, "active": 0, "ready": 0, "terminating": 0,
           "conditions": [condition("FailureTarget"), condition("Failed")]})
}

/// Checks that every Job is retired, which happens after its outcome is stored.
async fn outcomes(namespace: &Namespace) -> Result<(), String> {
    let list = namespace.jobs.list_metadata(&kube::api::ListParams::default()).await;
    let list = list.map_err(|error| error.to_string())?.items;
    let settled = |job: &&kube::core::PartialObjectMeta<k8s_openapi::api::batch::v1::Job>| {
        let labels = job.metadata.labels.as_ref();
        labels.is_some_and(|all| all.contains_key("natsjobs.dev/outcome"))
    };
    let count = list.iter().filter(settled).count();
    if count >= COUNT { Ok(()) } else { Err(format!("{count} Jobs are retired")) }
}
