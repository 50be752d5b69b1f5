//! `bench delays`: the time from the end of a pod until its `ATTEMPT` and the Job's `OUTCOME` are
//! stored, for many Jobs concurrently.
//!
//! The control plane and its Job controller are real. The benchmark ends all pods by patching their
//! status, as a kubelet does. The time starts when the patch is sent, so it includes the API
//! server's write.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_nats::jetstream::{
    self, consumer::DeliverPolicy, consumer::pull::OrderedConfig, context::ContextBuilder,
};
use dispatcher_tests::{Dispatcher, Kubernetes, Namespace, Nats, Options, paths, until};
use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::requests::publish;
use crate::{IN_FLIGHT, JOBS, shipped};

/// With default limits the Job controller creates about 20 pods per second.
const DEADLINE: Duration = Duration::from_secs(600);

/// A time per Job, by its name.
type Times = BTreeMap<String, SystemTime>;

pub(crate) async fn run() -> Result<(), String> {
    println!("{JOBS} Jobs whose pods end concurrently; seconds from the end of the pod:\n");
    println!("  {:<50} {:>6} {:>6} {:>6}", "", "p50", "p99", "max");
    for (raised_limits, name) in
        [(true, "Job controller with raised limits"), (false, "Job controller with default limits")]
    {
        let kubernetes = Kubernetes::control_plane(Options { raised_limits, ..Options::default() }).await?;
        println!("  {name}");
        burst(&kubernetes.namespace().await).await?;
    }
    Ok(())
}

async fn burst(namespace: &Namespace) -> Result<(), String> {
    let folder = paths::temp_dir("bench")?;
    std::fs::write(folder.path().join("simple.yaml"), shipped()?).map_err(|error| error.to_string())?;
    let nats = Nats::process().await;
    let _dispatcher = Dispatcher::builder(&nats, namespace)
        .templates(folder.path())
        .env("RUST_LOG", "warn")
        .try_start()
        .await?;
    let context =
        ContextBuilder::default().timeout(DEADLINE).backpressure_on_inflight(true).build(nats.client().await);
    let published = stream::iter(0..JOBS).map(|n| publish(&context, n)).buffer_unordered(256);
    published.collect::<Vec<_>>().await.into_iter().collect::<Result<(), String>>()?;
    let pods = until("a pod of every Job", DEADLINE, || async {
        let list = namespace.pods.list(&ListParams::default()).await.map_err(|error| error.to_string())?;
        if list.items.len() >= JOBS { Ok(list.items) } else { Err(format!("{} pods", list.items.len())) }
    })
    .await;
    let ended = stream::iter(&pods).map(|pod| end(&namespace.pods, pod)).buffer_unordered(IN_FLIGHT);
    let ended: Times = ended.collect::<Vec<_>>().await.into_iter().collect::<Result<_, String>>()?;
    let mut stored = events(&context).await?;
    let (final_state, outcomes) = (stored.remove("MODIFIED"), stored.remove("OUTCOME"));
    for (name, times) in [
        ("until ATTEMPT is stored", stored.remove("ATTEMPT")),
        ("until Kubernetes stores the final condition", final_state),
        ("until OUTCOME is stored", outcomes),
    ] {
        print(name, &ended, &times.unwrap_or_default())?;
    }
    Ok(())
}

/// Ends a pod; returns the name of its Job and the time.
async fn end(pods: &Api<Pod>, pod: &Pod) -> Result<(String, SystemTime), String> {
    let meta = &pod.metadata;
    let job = meta.labels.as_ref().and_then(|labels| labels.get("batch.kubernetes.io/job-name"));
    let (Some(name), Some(job)) = (&meta.name, job) else { return Err("pod without a Job".to_owned()) };
    let now = k8s_openapi::jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let terminated = json!({"exitCode": 0, "reason": "Completed", "startedAt": now, "finishedAt": now});
    let status = json!({"phase": "Succeeded", "startTime": now, "containerStatuses": [{
        "name": "simple-job", "image": "i", "imageID": "i", "ready": false, "restartCount": 0,
        "state": {"terminated": terminated}}]});
    let at = SystemTime::now();
    let patched =
        pods.patch_status(name, &PatchParams::default(), &Patch::Merge(json!({"status": status}))).await;
    patched.map_err(|error| format!("end pod {name}: {error}"))?;
    Ok((job.clone(), at))
}

/// The times at which events were stored, by type and Job, until every Job has its outcome. Of
/// several events of one type the last counts.
async fn events(context: &jetstream::Context) -> Result<BTreeMap<String, Times>, String> {
    let config = OrderedConfig { deliver_policy: DeliverPolicy::All, ..OrderedConfig::default() };
    let stream = context.get_stream("JOB_STATUS").await.map_err(|error| error.to_string())?;
    let consumer = stream.create_consumer(config).await.map_err(|error| error.to_string())?;
    let mut messages = consumer.messages().await.map_err(|error| error.to_string())?;
    let mut stored: BTreeMap<String, Times> = BTreeMap::new();
    while stored.get("OUTCOME").map_or(0, Times::len) < JOBS {
        let next = timeout(DEADLINE, messages.next())
            .await
            .map_err(|_| "timed out waiting for an outcome".to_owned())?;
        let message = next.ok_or("the stream ended")?.map_err(|error| error.to_string())?;
        let info = message.info().map_err(|error| error.to_string())?;
        let nanos =
            u64::try_from(info.published.unix_timestamp_nanos()).map_err(|error| error.to_string())?;
        let event: Value = serde_json::from_slice(&message.payload).map_err(|error| error.to_string())?;
        let text = |key: &str| event.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        stored
            .entry(text("type"))
            .or_default()
            .insert(text("name"), UNIX_EPOCH + Duration::from_nanos(nanos));
    }
    Ok(stored)
}

#[expect(clippy::cast_possible_truncation, reason = "an index of a small vector")]
fn print(name: &str, from: &Times, to: &Times) -> Result<(), String> {
    let mut delays: Vec<f64> = from
        .iter()
        .filter_map(|(job, start)| {
            Some(to.get(job)?.duration_since(*start).unwrap_or_default().as_secs_f64())
        })
        .collect();
    if delays.len() != from.len() {
        return Err(format!("{name}: measured {1} of {0} Jobs", from.len(), delays.len()));
    }
    delays.sort_by(f64::total_cmp);
    let at = |part: f64| {
        delays.get(((delays.len() - 1) as f64 * part).round() as usize).copied().unwrap_or(f64::NAN)
    };
    println!("    {name:<48} {:>6.2} {:>6.2} {:>6.2}", at(0.5), at(0.99), at(1.0));
    Ok(())
}
