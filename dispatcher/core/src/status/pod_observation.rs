//! What a watch delivers about the pods of a Job: their states, Warnings of Kubernetes Events, and what
//! Kueue decides about the Job.

use crate::contract::{
    event::{Attempt, Stall},
    names::{JobName, TemplateName},
};

/// What a pod, a Kubernetes Event or a Workload of Kueue reveals about a Job.
#[derive(Debug, Clone, PartialEq)]
pub struct PodObservation {
    /// The Job's template; `None` if the observation comes from a Kubernetes Event of the Job or from
    /// its Workload.
    pub template: Option<TemplateName>,
    /// The Job's name.
    pub name: JobName,
    /// The Job's uid.
    pub uid: String,
    /// The observed state.
    pub state: PodState,
}

/// The observed state of a pod. Times are in seconds since 1970, the precision of Kubernetes.
#[derive(Debug, Clone, PartialEq)]
pub enum PodState {
    /// The pod exists, and its work does not run.
    Waiting {
        /// The pod's uid.
        pod: String,
        /// When the pod was created.
        created: i64,
        /// When the start last made progress. An older Warning is outdated.
        progress: i64,
        /// What the pod waits for.
        wait: Wait,
    },
    /// The pod runs.
    Running {
        /// The pod's uid.
        pod: String,
        /// When the pod was created.
        created: i64,
    },
    /// The pod is being deleted. It starts no work any more, and may never end if its node is lost.
    Terminating {
        /// The pod's uid.
        pod: String,
        /// When the pod was created.
        created: i64,
    },
    /// The pod ended.
    Ended {
        /// The pod's uid.
        pod: String,
        /// When the pod was created.
        created: i64,
        /// How it ended.
        attempt: Box<Attempt>,
        /// The container whose log explains the end; `None` if the pod succeeded or never ran.
        log: Option<String>,
    },
    /// A Kubernetes Event of the type `Warning`.
    Warning {
        /// The uid of its pod; `None` for a Warning about the Job itself.
        pod: Option<String>,
        /// When the Event last occurred.
        at: i64,
        /// The reason and the message of the Event.
        stall: Stall,
    },
    /// The Workload of the Job.
    Workload {
        /// Why Kueue keeps the Job suspended; `None` if it has admitted the Job.
        stall: Option<Stall>,
    },
}

/// What a pod that does not run waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wait {
    /// The status of the pod contains the reason.
    Blocked(Stall),
    /// The pod starts. The text is the step that it has reached.
    Starting(Stall),
}
