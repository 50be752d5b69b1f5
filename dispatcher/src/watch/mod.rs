//! The watch side: observes Jobs, pods and Kubernetes Events in every replica. The leader resyncs
//! and hands its observations to `status`.

pub(crate) mod events;
pub(crate) mod jobs;
mod logs;
pub(crate) mod pods;
mod resync;
pub(crate) mod retire;
mod tombstones;
mod watch_loop;
