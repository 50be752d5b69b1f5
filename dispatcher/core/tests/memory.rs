//! Counts the bytes that the dispatcher keeps for each unfinished Job. It is a separate program,
//! because it counts all allocations.

#![allow(clippy::unwrap_used, reason = "test code")]

use std::collections::HashMap;

use dispatcher_core::{
    contract::{
        event::EventType,
        job::{JobState, Presence},
        job_status::JobStatus,
        names::{JobName, RequestId, TemplateName},
    },
    request::concurrency::ConcurrencyTable,
    status::{
        LastEvent, SubjectKey, SubjectState,
        pod_observation::PodState,
        reconcile::{Action, Source},
        subject_queue::{ActionResult, SubjectQueue},
    },
};
use serde_json::{Value, json};
use uuid::Uuid;

const JOBS: u64 = 1000;

/// What a leader keeps of its unfinished Jobs.
#[derive(Default)]
struct Kept {
    queues: HashMap<SubjectKey, Box<SubjectQueue<()>>>,
    limiter: ConcurrencyTable,
}

fn job(number: u64, resource_version: u64, status: Value) -> JobState {
    let uid = Uuid::from_u128(u128::from(number) << 64);
    JobState {
        template: TemplateName::try_from("simple").unwrap(),
        name: JobName::try_from(format!("simple-job-{number:08}")).unwrap(),
        namespace: "jobs".to_owned(),
        uid: uid.to_string(),
        request_id: RequestId::from(uid),
        request_seq: number,
        request_hash: "0123456789abcdef".repeat(4),
        resource_version,
        retired: false,
        confirmed: false,
        presence: Presence::Present,
        cancelled: false,
        creation_time: None,
        trace: None,
        template_hash: None,
        submitter: None,
        status: JobStatus::from(status),
    }
}

impl Kept {
    /// Observes a Job, and publishes the events that are due.
    fn observe(&mut self, job: JobState, pod: Option<PodState>) {
        self.limiter.apply(&job, false);
        let key = (job.template.clone(), job.name.clone());
        let queue =
            self.queues.entry(key).or_insert_with(|| Box::new(SubjectQueue::new(SubjectState::default())));
        pod.into_iter().for_each(|pod| queue.observe_pod(job.uid.clone(), pod));
        queue.enqueue(job, Source::Watch);
        while let Some((Action::Publish(event, _), job, subject)) = queue.next(true) {
            let last = LastEvent { uid: job.uid.clone(), resource_version: job.resource_version, event };
            assert!(event == EventType::Added || event == EventType::Modified);
            let sequence = subject.sequence + 1;
            queue.complete(ActionResult::Published(SubjectState { sequence, last: Some(last) }));
        }
    }
}

/// The allocated bytes of each Job, without the overhead of the allocator.
fn bytes_per_job(statuses: &[Value], pod: bool) -> u64 {
    let mut kept = Kept::default();
    let info = allocation_counter::measure(|| {
        for number in 0..JOBS {
            for (version, status) in (1..).zip(statuses) {
                let pod = pod.then(|| PodState::Running { pod: Uuid::from_u128(7).to_string(), created: 1 });
                kept.observe(job(number, version, status.clone()), pod);
            }
        }
    });
    assert_eq!(kept.queues.len() as u64, JOBS);
    u64::try_from(info.bytes_current).unwrap() / JOBS
}

fn running() -> Value {
    json!({"active": 1, "ready": 1, "startTime": "2026-01-01T00:00:00Z", "terminating": 0,
           "uncountedTerminatedPods": {}})
}

#[test]
fn unfinished_job_without_pods_takes_less_than_a_kibibyte() {
    let bytes = bytes_per_job(&[json!({})], false);
    assert!(bytes < 900, "{bytes} bytes");
}

#[test]
fn memory_does_not_grow_with_the_states_of_a_job() {
    let (one, four) = ([running()], [running(), json!({}), json!({"ready": 0}), running()]);
    assert_eq!(bytes_per_job(&one, false), bytes_per_job(&four, false));
}

#[test]
fn running_job_with_a_pod_takes_less_than_two_kibibytes() {
    let bytes = bytes_per_job(&[running()], true);
    assert!(bytes < 2048, "{bytes} bytes");
}
