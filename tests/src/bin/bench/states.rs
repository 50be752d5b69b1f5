//! Brings a new installation into a state: live Jobs, finished Jobs with or without their pods, and
//! the history of earlier Jobs in `JOB_STATUS`. All are copies of a sample Job.

use std::time::Duration;

use dispatcher_tests::job_controller::finished_status;
use dispatcher_tests::{Dispatcher, Kubernetes};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use crate::clones::{Etcd, Sample, job_name};
use crate::environment::{Installation, Jobs, Program, control_plane};
use crate::pods::ended_pod;
use crate::requests;

/// The copies of one step, and how many are written per second: the dispatcher and the watch cache
/// must keep up, as they do behind a real API server.
const STEP: usize = 500;
const PER_SECOND: f64 = 2_500.0;

/// The numbers of the samples. Their copies have the numbers that follow.
pub(crate) const LIVE: usize = 0;
pub(crate) const FINISHED: usize = 100_000_000;

/// A control plane whose controllers are frozen, and one installation.
pub(crate) struct States {
    _kubernetes: Kubernetes,
    pub(crate) installation: Installation,
    etcd: Etcd,
}

/// A Job that the dispatcher created.
pub(crate) struct SampleJob {
    pub(crate) name: String,
    pub(crate) uid: String,
    number: usize,
}

impl States {
    /// Starts everything, and a dispatcher.
    pub(crate) async fn new(program: &Program, jobs: Jobs) -> Result<(Self, Dispatcher), String> {
        let kubernetes = control_plane().await?;
        let installation = Installation::new(&kubernetes, jobs).await?;
        for component in ["controller-manager", "scheduler"] {
            kubernetes.freeze(component).await;
        }
        let dispatcher = installation.start(program).await?;
        let etcd = Etcd::of(&kubernetes)?;
        Ok((Self { _kubernetes: kubernetes, installation, etcd }, dispatcher))
    }

    /// Lets the dispatcher create a sample Job.
    pub(crate) async fn sample_job(&self, number: usize) -> Result<SampleJob, String> {
        let name = job_name(number);
        requests::publish_named(&self.installation.context, &name).await?;
        self.installation.until_messages("JOBS", |count| count == 0).await?;
        let uid = self.get(&name).await?.metadata.uid.ok_or_else(|| format!("{name} has no uid"))?;
        Ok(SampleJob { name, uid, number })
    }

    async fn get(&self, name: &str) -> Result<Job, String> {
        self.installation.namespace.jobs.get(name).await.map_err(|error| format!("{name}: {error}"))
    }

    /// The Job as it is stored now.
    pub(crate) async fn stored(&self, job: &SampleJob) -> Result<Sample, String> {
        let key = format!("/registry/jobs/{}/{}", self.installation.namespace.name, job.name);
        Sample::read(&self.etcd, key, &job.name, &[&job.uid]).await
    }

    /// Writes copies at a bounded rate: from the `first` up to the `last` of this Job.
    pub(crate) async fn copy(
        &self,
        job: &SampleJob,
        samples: &[Sample],
        first: usize,
        last: usize,
    ) -> Result<(), String> {
        let mut next = Instant::now();
        for step in (first..=last).step_by(STEP) {
            sleep_until(next).await;
            let end = last.min(step + STEP - 1);
            next += Duration::from_secs_f64((end + 1 - step) as f64 / PER_SECOND);
            self.etcd.copy(samples, job.number + step..=job.number + end).await?;
        }
        Ok(())
    }

    /// Writes copies while no dispatcher runs.
    pub(crate) async fn copy_unwatched(
        &self,
        job: &SampleJob,
        samples: &[Sample],
        first: usize,
        last: usize,
    ) -> Result<(), String> {
        self.etcd.copy_unwatched(samples, job.number + first..=job.number + last).await
    }

    /// Adds copies of a live Job while the dispatcher runs; waits for their `ADDED`.
    pub(crate) async fn add_live(&self, job: &SampleJob, first: usize, last: usize) -> Result<(), String> {
        let before = self.installation.messages("JOB_STATUS").await?;
        let added = u64::try_from((last + 1).saturating_sub(first)).map_err(|error| error.to_string())?;
        self.copy(job, &[self.stored(job).await?], first, last).await?;
        self.installation.until_messages("JOB_STATUS", |count| count >= before + added).await
    }

    /// Patches the status of a Job.
    pub(crate) async fn set_status(&self, job: &SampleJob, status: &Value) -> Result<(), String> {
        let patch = Patch::Merge(json!({"status": status}));
        let jobs = &self.installation.namespace.jobs;
        let patched = jobs.patch_status(&job.name, &PatchParams::default(), &patch).await;
        patched.map(drop).map_err(|error| format!("status of {}: {error}", job.name))
    }

    /// Ends a Job that has a pod, and waits until the dispatcher has retired it. Returns the Job and
    /// the pod as they are stored.
    pub(crate) async fn finish(&self, job: &SampleJob) -> Result<[Sample; 2], String> {
        let pod_uid = self.add_ended_pod(job).await?;
        self.set_status(job, &finished_status("Complete", 0, "CompletionsReached", "done")).await?;
        self.installation.until_retired().await?;
        let key = format!("/registry/pods/{}/{}", self.installation.namespace.name, pod_name(job));
        let pod = Sample::read(&self.etcd, key, &job.name, &[&pod_uid, &job.uid]).await?;
        Ok([self.stored(job).await?, pod])
    }

    /// Creates the pod of a Job as the Job controller does; returns its uid.
    async fn add_ended_pod(&self, job: &SampleJob) -> Result<String, String> {
        let template = self.get(&job.name).await?.spec.map(|spec| spec.template).unwrap_or_default();
        let mut pod = serde_json::to_value(&template).map_err(|error| error.to_string())?;
        let owner = json!([{"apiVersion": "batch/v1", "kind": "Job", "name": job.name, "uid": job.uid,
                            "controller": true, "blockOwnerDeletion": true}]);
        if let Some(meta) = pod.get_mut("metadata").and_then(Value::as_object_mut) {
            meta.insert("name".to_owned(), pod_name(job).into());
            meta.insert("ownerReferences".to_owned(), owner);
        }
        let pod: Pod = serde_json::from_value(pod).map_err(|error| format!("pod: {error}"))?;
        let pods = &self.installation.namespace.pods;
        let made = pods.create(&PostParams::default(), &pod).await.map_err(|e| format!("pod: {e}"))?;
        let patch = Patch::Merge(json!({"status": ended_pod()}));
        let ended = pods.patch_status(&pod_name(job), &PatchParams::default(), &patch).await;
        ended.map_err(|error| format!("status of the pod: {error}"))?;
        made.metadata.uid.ok_or_else(|| "the pod has no uid".to_owned())
    }
}

fn pod_name(job: &SampleJob) -> String {
    format!("{}-abcde", job.name)
}
