//! Reads a Workload of Kueue: why Kueue keeps a Job suspended.
//!
//! The conditions of the Workload are the only complete source. Kueue's Kubernetes Events have no
//! Warning for a missing or stopped queue or for an eviction, and name the Workload instead of the Job.

use kube_core::ApiResource;
use serde::{Deserialize, de::IgnoredAny};

use crate::{
    contract::{event::Stall, names::JobName, object::Object, text},
    status::{
        explain::owner::owner_job,
        pod_observation::{PodObservation, PodState},
    },
};

/// The prefix of the reasons, which are Kueue's own. Some, such as `Pending`, are reasons of pods too.
const PREFIX: &str = "Kueue";

/// A `kueue.x-k8s.io` Workload with only the fields that are in use.
pub type WorkloadObject = Object<IgnoredAny, Status>;

/// The used fields of a `WorkloadStatus`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    conditions: Vec<Condition>,
    admission_checks: Vec<AdmissionCheck>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Condition {
    #[serde(rename = "type")]
    type_: String,
    status: String,
    reason: String,
    message: String,
}

/// What another controller decides about the Workload, such as an autoscaler about its nodes.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct AdmissionCheck {
    name: String,
    state: String,
    message: String,
}

/// The resource of the Workloads.
#[must_use]
pub fn resource() -> ApiResource {
    let (group, version) = ("kueue.x-k8s.io", "v1beta2");
    ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version: format!("{group}/{version}"),
        kind: "Workload".to_owned(),
        plural: "workloads".to_owned(),
    }
}

/// Reads what a Workload reveals about its Job. `deleted` is true if the watch reports its deletion.
///
/// Returns `None` for a Workload of no Job, and for a finished one.
#[must_use]
pub fn observation(workload: &WorkloadObject, deleted: bool) -> Option<PodObservation> {
    let owner = owner_job(&workload.metadata)?;
    let no_status = Status::default();
    let status = workload.status.as_ref().filter(|_| !deleted).unwrap_or(&no_status);
    if status.condition("Finished", "True").is_some() {
        return None;
    }
    Some(PodObservation {
        template: None,
        name: JobName::try_from(owner.name.as_str()).ok()?,
        uid: owner.uid.clone(),
        state: PodState::Workload { stall: status.stall() },
    })
}

impl Status {
    fn condition(&self, type_: &str, status: &str) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.type_ == type_ && condition.status == status)
    }

    /// Why Kueue keeps the Job suspended; `None` if it does not, or has not considered the Job yet.
    ///
    /// After an eviction, its reason holds until Kueue reserves quota again. The message ends with what
    /// the Job waits for now.
    fn stall(&self) -> Option<Stall> {
        let pending = self.condition("QuotaReserved", "False");
        if let Some(evicted) = self.condition("Evicted", "True") {
            let now = pending.map(|pending| pending.message.as_str());
            let now = now.filter(|now| !now.is_empty() && *now != evicted.message);
            let message = now.map_or_else(|| evicted.message.clone(), |now| joined(&evicted.message, now));
            return Some(stall(&evicted.reason, &message));
        }
        if let Some(pending) = pending {
            return Some(stall(&pending.reason, &pending.message));
        }
        if self.condition("QuotaReserved", "True").is_none() || self.condition("Admitted", "True").is_some() {
            return None;
        }
        let check = self.admission_checks.iter().find(|check| check.state != "Ready")?;
        let state = format!("AdmissionCheck {} is {}", check.name, check.state);
        let message = if check.message.is_empty() { state } else { format!("{state}: {}", check.message) };
        Some(stall("AdmissionCheck", &message))
    }
}

fn joined(first: &str, second: &str) -> String {
    if first.is_empty() { second.to_owned() } else { format!("{first}; {second}") }
}

fn stall(reason: &str, message: &str) -> Stall {
    let reason = if reason.is_empty() { "Pending" } else { reason };
    let reason = text::reason(Some(&format!("{PREFIX}{reason}"))).unwrap_or_default();
    Stall { reason, message: text::message(Some(message)).unwrap_or_default() }
}

#[cfg(test)]
mod tests;
