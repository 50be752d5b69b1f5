//! A model of a Job and its pods, to which tests apply plans.

use k8s_openapi::api::batch::v1::JobStatus;
use k8s_openapi::jiff::SignedDuration;
use serde_json::{Value, json};

use super::*;

/// A Job and its pods without a cluster. Plans are applied immediately.
pub(super) struct Model {
    pub(super) job: Job,
    pub(super) pods: Vec<Pod>,
    pub(super) now: Timestamp,
    pub(super) created: usize,
    pub(super) scale: f64,
    /// Every written status, as JSON.
    pub(super) written: Vec<Value>,
    /// The maximum number of active pods.
    pub(super) max_active: usize,
}

impl Model {
    pub(super) fn new(spec: Value) -> Self {
        let mut job = json!({"metadata": {"name": "a", "namespace": "n", "uid": "job"}, "spec": spec});
        json_defaults(&mut job);
        Self {
            job: serde_json::from_value(job).unwrap(),
            pods: Vec::new(),
            now: Timestamp::from_second(1_000_000).unwrap(),
            created: 0,
            scale: 1.0,
            written: Vec::new(),
            max_active: 0,
        }
    }

    /// Syncs once and returns whether anything changed.
    pub(super) fn sync_once(&mut self) -> bool {
        self.sync_partially(true)
    }

    /// Syncs once. Unless `whole`, the sync stops after it has stored the status.
    pub(super) fn sync_partially(&mut self, whole: bool) -> bool {
        let plan = reconcile(&self.job, &self.pods, self.now, self.scale);
        for deletion in &plan.delete {
            let pod = self.pods.iter_mut().find(|pod| pods::uid(pod) == deletion.uid).unwrap();
            pod.metadata.deletion_timestamp = Some(Time(self.now));
            if deletion.release {
                pod.metadata.finalizers = None;
            }
        }
        for mut pod in plan.create.clone() {
            self.created += 1;
            let name = format!("{}{}", pod.metadata.generate_name.take().unwrap(), self.created);
            pod.metadata.uid = Some(format!("uid-{name}"));
            pod.metadata.name = Some(name);
            pod.metadata.creation_timestamp = Some(Time(self.now));
            self.pods.push(pod);
        }
        self.max_active = self.max_active.max(self.pods.iter().filter(|pod| pods::is_active(pod)).count());
        if let Some(status) = &plan.status {
            self.written.push(serde_json::to_value(status).unwrap());
            self.job.status = Some(status.clone());
        }
        for name in plan.release.iter().filter(|_| whole) {
            let pod = self.pods.iter_mut().find(|pod| pods::name(pod) == name).unwrap();
            pod.metadata.finalizers = None;
        }
        self.pods.retain(|pod| !pods::is_deleting(pod) || pods::is_tracked(pod) || pods::is_terminating(pod));
        plan.changes()
    }

    /// Syncs until nothing changes.
    pub(super) fn sync_until_stable(&mut self) -> &mut Self {
        assert!(
            (0..100).any(|_| !self.sync_once()),
            "the Job does not become stable: {:?}",
            self.written.last()
        );
        self
    }

    pub(super) fn advance(&mut self, seconds: i64) -> &mut Self {
        self.now = self.now.checked_add(SignedDuration::from_secs(seconds)).unwrap();
        self
    }

    pub(super) fn active(&mut self) -> Vec<&mut Pod> {
        self.pods.iter_mut().filter(|pod| pods::is_active(pod)).collect()
    }

    /// Sets the status of the first active pod, if there is one.
    pub(super) fn set(&mut self, status: Value) -> &mut Self {
        if let Some(pod) = self.active().into_iter().next() {
            pod.status = serde_json::from_value(status).unwrap();
        }
        self
    }

    pub(super) fn run(&mut self) -> &mut Self {
        self.set(json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}))
    }

    pub(super) fn end(&mut self, succeeded: bool) -> &mut Self {
        let phase = if succeeded { "Succeeded" } else { "Failed" };
        let state =
            json!({"terminated": {"exitCode": i32::from(!succeeded), "finishedAt": self.now.to_string()}});
        let container = json!({"name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state});
        self.set(json!({"phase": phase, "containerStatuses": [container]}))
    }

    /// Removes terminating pods that their finalizer retains.
    pub(super) fn remove_retained(&mut self) -> &mut Self {
        self.pods.retain(|pod| !pods::is_deleting(pod));
        self
    }

    pub(super) fn status(&self) -> JobStatus {
        self.job.status.clone().unwrap_or_default()
    }

    /// The conditions that are `True`, with their reasons.
    pub(super) fn conditions(&self) -> Vec<(String, String)> {
        let conditions = self.status().conditions.unwrap_or_default();
        let held = conditions.into_iter().filter(|condition| condition.status == "True");
        held.map(|condition| (condition.type_, condition.reason.unwrap_or_default())).collect()
    }

    pub(super) fn reasons(&self) -> Vec<String> {
        self.conditions().into_iter().map(|(kind, reason)| format!("{kind}/{reason}")).collect()
    }
}

fn json_defaults(job: &mut Value) {
    let template = json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}});
    let spec = job["spec"].as_object_mut().unwrap();
    spec.entry("template").or_insert(template);
}
