//! The watch side: observes Jobs, pods, Kubernetes Events and Workloads in every replica. The leader resyncs
//! and hands its observations to `status`.

mod departures;
mod ended_pods;
pub(crate) mod events;
pub(crate) mod job_templates;
pub(crate) mod jobs;
pub(crate) mod labelled;
mod list_watch;
mod logs;
pub(crate) mod pods;
mod resync;
pub(crate) mod retire;
pub(crate) mod retired;
mod tombstones;
mod watch_loop;
pub(crate) mod workloads;
