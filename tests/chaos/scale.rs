//! Large numbers: a long queue at the start, and a namespace full of finished Jobs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dispatcher_tests::{Kubernetes, Nats, Options, chaos, or_skip, until};
use futures::{StreamExt, stream};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;

use crate::scenario::repeat_on;
use dispatcher_tests::job_controller::finished_status;
use dispatcher_tests::load_test::LoadTest;
use dispatcher_tests::test_env::TestEnv;
use dispatcher_tests::wait::TIMEOUT;

/// The number of concurrent calls that fill a namespace.
const AT_ONCE: usize = 32;

#[tokio::test(flavor = "multi_thread")]
async fn long_queue_at_start() {
    let kubernetes = or_skip!(Kubernetes::control_plane(Options::default()).await);
    let count = chaos::scaled(10_000);
    let start = async || {
        Ok(LoadTest::new(TestEnv::new(Nats::start().await, kubernetes.namespace().await).await).await)
    };
    let fault = format!("{count} queued requests at the start, one kill meanwhile");
    repeat_on(&fault, start, async |scenario, random| {
        assert_eq!(scenario.dispatcher.terminate().await, Some(0));
        scenario.load(0, count).await;
        let started = Instant::now();
        scenario.dispatcher.restart().await;
        scenario.until_jobs(random.usize(1..count / 2)).await;
        scenario.dispatcher.kill().await;
        scenario.redeliver_now().await;
        scenario.dispatcher.restart().await;
        scenario.env.until_queue_is_empty().await;
        scenario.recovered(&format!("{count} queued requests handled, with one kill"), started);
    })
    .await;
}

/// All runs share one filled namespace. The dispatcher publishes nothing about retired Jobs.
#[tokio::test(flavor = "multi_thread")]
async fn many_finished_jobs_at_start() {
    let kubernetes = or_skip!(Kubernetes::control_plane(Options::default()).await);
    let count = chaos::scaled(20_000);
    let namespace = Arc::new(kubernetes.namespace().await);
    {
        let run = LoadTest::new(TestEnv::new(Nats::start().await, namespace.clone()).await).await;
        run.request("model", "OUTCOME").await;
        let model = until("the first Job to be retired", TIMEOUT, || async {
            let job = run.env.job("model").await;
            let labels = job.metadata.labels.clone().unwrap_or_default();
            labels.contains_key("natsjobs.dev/outcome").then_some(job)
        })
        .await;
        // It would find copies of a retired Job and publish them.
        run.dispatcher.kill().await;
        fill(&namespace.jobs, model, count).await;
    }
    let start = async || {
        // Deletes the Lease of the previous run, whose dispatcher was killed.
        let leases: Api<Lease> = Api::namespaced(namespace.client.clone(), &namespace.name);
        let _ = leases.delete("dispatcher", &DeleteParams::default()).await;
        Ok(LoadTest::new(TestEnv::new(Nats::start().await, namespace.clone()).await).await)
    };
    let fault = format!("{count} finished Jobs at the start, killed under load");
    repeat_on(&fault, start, async |scenario, random| {
        // Unique names, since the Jobs of previous runs still exist.
        let from = random.usize(1..1_000_000) * 1000;
        tokio::join!(scenario.load(from, 100), async {
            // The duration of the fault.
            tokio::time::sleep(Duration::from_millis(random.u64(0..1000))).await;
            scenario.dispatcher.kill().await;
            scenario.redeliver_now().await;
            let started = Instant::now();
            scenario.dispatcher.restart().await;
            scenario.recovered(&format!("start with {count} finished Jobs, until it leads"), started);
        });
    })
    .await;
}

/// Creates copies of a retired Job, as earlier requests leave them.
async fn fill(jobs: &Api<Job>, model: Job, count: usize) {
    let mut job = model;
    let meta = &mut job.metadata;
    (meta.uid, meta.resource_version, meta.creation_timestamp, meta.managed_fields) =
        (None, None, None, None);
    job.status = None;
    if let Some(spec) = &mut job.spec {
        spec.selector = None;
        spec.ttl_seconds_after_finished = None;
        let labels = spec.template.metadata.as_mut().and_then(|meta| meta.labels.as_mut());
        labels.into_iter().for_each(|labels| {
            labels.retain(|label, _| !label.contains("controller-uid") && !label.contains("job-name"));
        });
    }
    if let Some(labels) = &mut job.metadata.labels {
        labels.retain(|label, _| !label.contains("controller-uid") && !label.contains("job-name"));
    }
    let status = json!({"status": finished_status("Complete", 0, "CompletionsReached", "done")});
    let made = (0..count).map(|number| {
        let mut job = job.clone();
        // The test's Job controller ignores names with `wait`.
        let name = format!("wait-old-{number}");
        job.metadata.name = Some(name.clone());
        let status = &status;
        async move {
            let created = jobs.create(&PostParams::default(), &job).await.unwrap();
            // Each has the identity of its own request, and the record of its own outcome.
            let record = format!("{}/1", created.metadata.uid.unwrap_or_default());
            let annotations = json!({"natsjobs.dev/job-name": name, "natsjobs.dev/outcome-record": record});
            let patch = Patch::Merge(json!({"metadata": {"annotations": annotations}}));
            jobs.patch(&name, &PatchParams::default(), &patch).await.unwrap();
            jobs.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
        }
    });
    stream::iter(made).buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
}
