//! `bench attempts`: the time from the end of a pod until its `ATTEMPT` and the Job's `OUTCOME` are
//! stored, for many Jobs whose pods end at the same time.
//!
//! The control plane and its Job controller are real. The benchmark ends all pods by patching their
//! status, as a kubelet does. The time starts when the patch is sent, so it includes the API
//! server's write.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_nats::jetstream::consumer::{DeliverPolicy, pull::OrderedConfig};
use dispatcher_tests::wait;
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::environment::{DEADLINE, IN_FLIGHT, Installation, Jobs, Run, control_plane};
use crate::pods::ended_pod;
use crate::report::{Goal, Results, Row, at};
use crate::requests;

/// A time per Job, by its name.
pub(crate) type Times = BTreeMap<String, SystemTime>;

pub(crate) async fn run(run: &Run) -> Result<Results, String> {
    let burst = run.size.burst;
    let kubernetes = control_plane().await?;
    kubernetes.freeze("scheduler").await;
    let title =
        |what: &str, part: &str| format!("end of a pod until {what} is stored, {burst} concurrently, {part}");
    let mut p50 = Row::new(&title("its ATTEMPT", "p50"), "s").goal(Goal::AtMost(0.1));
    let mut p99 = Row::new(&title("its ATTEMPT", "p99"), "s").goal(Goal::AtMost(0.3));
    let mut condition = Row::new(&title("the Job's final condition", "p50"), "s");
    let mut outcome = Row::new(&title("the OUTCOME", "p50"), "s");
    for _ in 0..run.size.rounds.min(3) {
        for program in &run.dispatchers {
            let installation = Installation::new(&kubernetes, Jobs::WithPods).await?;
            let _dispatcher = installation.start(program).await?;
            let (ended, stored) = end_all(&installation, burst).await?;
            let delays = |type_: &str| delays(&ended, stored.get(type_), type_);
            let attempts = delays("ATTEMPT")?;
            p50.add(program.side, at(&attempts, 0.5));
            p99.add(program.side, at(&attempts, 0.99));
            condition.add(program.side, at(&delays("MODIFIED")?, 0.5));
            outcome.add(program.side, at(&delays("OUTCOME")?, 0.5));
        }
    }
    Ok(Results { rows: vec![p50, p99, condition, outcome], curves: vec![] })
}

/// Requests the Jobs, and ends their pods once all exist. Returns when each ended, and when the last
/// event of each type was stored.
pub(crate) async fn end_all(
    installation: &Installation,
    burst: usize,
) -> Result<(Times, BTreeMap<String, Times>), String> {
    requests::publish_all(&installation.context, 0..burst).await?;
    let pods = &installation.namespace.pods;
    let found = wait::try_until("a pod of every Job", DEADLINE, || async {
        let list = pods.list(&ListParams::default()).await.map_err(|error| error.to_string())?;
        if list.items.len() >= burst { Ok(list.items) } else { Err(format!("{} pods", list.items.len())) }
    })
    .await?;
    let ended = stream::iter(&found).map(|pod| end(pods, pod)).buffer_unordered(IN_FLIGHT);
    let ended: Times = ended.try_collect().await?;
    Ok((ended, events(installation, burst).await?))
}

/// Ends a pod; returns the name of its Job and the time.
async fn end(pods: &Api<Pod>, pod: &Pod) -> Result<(String, SystemTime), String> {
    let meta = &pod.metadata;
    let job = meta.labels.as_ref().and_then(|labels| labels.get("batch.kubernetes.io/job-name"));
    let (Some(name), Some(job)) = (&meta.name, job) else { return Err("pod without a Job".to_owned()) };
    let patch = Patch::Merge(json!({"status": ended_pod()}));
    let at = SystemTime::now();
    let patched = pods.patch_status(name, &PatchParams::default(), &patch).await;
    patched.map_err(|error| format!("end pod {name}: {error}"))?;
    Ok((job.clone(), at))
}

/// The times at which events were stored, by type and Job, until every Job has its outcome. Of
/// several events of one type the last counts.
async fn events(installation: &Installation, burst: usize) -> Result<BTreeMap<String, Times>, String> {
    let config = OrderedConfig { deliver_policy: DeliverPolicy::All, ..OrderedConfig::default() };
    let stream = installation.context.get_stream("JOB_STATUS").await.map_err(|error| error.to_string())?;
    let consumer = stream.create_consumer(config).await.map_err(|error| error.to_string())?;
    let mut messages = consumer.messages().await.map_err(|error| error.to_string())?;
    let mut stored: BTreeMap<String, Times> = BTreeMap::new();
    while stored.get("OUTCOME").map_or(0, Times::len) < burst {
        let next = timeout(DEADLINE, messages.next()).await;
        let next = next.map_err(|_| "timed out waiting for an outcome".to_owned())?;
        let message = next.ok_or("the stream ended")?.map_err(|error| error.to_string())?;
        let info = message.info().map_err(|error| error.to_string())?;
        let nanos =
            u64::try_from(info.published.unix_timestamp_nanos()).map_err(|error| error.to_string())?;
        let event: Value = serde_json::from_slice(&message.payload).map_err(|error| error.to_string())?;
        let text = |key: &str| event.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let time = UNIX_EPOCH + Duration::from_nanos(nanos);
        stored.entry(text("type")).or_default().insert(text("name"), time);
    }
    Ok(stored)
}

/// The seconds from the end of each pod until the event.
pub(crate) fn delays(ended: &Times, stored: Option<&Times>, type_: &str) -> Result<Vec<f64>, String> {
    let delay = |(job, start): (&String, &SystemTime)| {
        let stored = stored.and_then(|times| times.get(job)).ok_or_else(|| format!("{job}: no {type_}"))?;
        Ok(stored.duration_since(*start).unwrap_or_default().as_secs_f64())
    };
    ended.iter().map(delay).collect()
}
