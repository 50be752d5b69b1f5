//! The instructions of the hot paths: from a request to its Job, and from a watch event to a status
//! event. `tests/instructions` counts them by callgrind and compares them with the recorded counts.
//!
//! Each benchmark runs once, in a separate process. The count excludes the setup.
#![allow(missing_docs, reason = "the macros generate public items")]
#![allow(clippy::unwrap_used, reason = "a panic is how a benchmark fails")]

use std::{collections::BTreeMap, hint::black_box};

use dispatcher_core::{
    contract::{
        event::EventType,
        job::{JobObject, JobState},
        rejection::Rejection,
        text,
        trace::TraceContext,
    },
    request::{Envelope, Identity, Request, job},
    status::{
        LastEvent, SubjectState,
        event_body::{EventBody, status_event},
        event_size::{EncodedEvent, encode},
        explain::pod::{PodObject, observation},
        log_tail::LogTailReader,
        pod_observation::{PodObservation, PodState},
        reconcile::{Action, Source, reconcile},
        subject_queue::{ActionResult, SubjectQueue},
    },
    template::Template,
    testing::simple,
};
use gungraun::{LibraryBenchmarkConfig, library_benchmark, library_benchmark_group, main};

/// Objects as a watch delivers them.
const JOB: &[u8] = include_bytes!("objects/job.json");
const POD: &[u8] = include_bytes!("objects/pod.json");
/// Every kind of parameter that the schema can constrain.
const PARAMETERS: &str = include_str!("objects/parameters.yaml");

const MAX_EVENT: usize = 1024 * 1024;

fn small() -> (Template, &'static [u8]) {
    (simple(), br#"{"foo":"a"}"#)
}

fn with_parameters() -> (Template, &'static [u8]) {
    let payload = br#"{"customer":"acme","region":"eu-west-1","count":25,"dryRun":true,"memory":"512Mi",
        "tags":"a,b,c","generateName":"report-","note":"Monthly report for \u00e4 customer."}"#;
    (Template::parse(PARAMETERS).unwrap(), payload)
}

fn invalid() -> (Template, &'static [u8]) {
    (simple(), br#"{"foo":7,"name":"a"}"#)
}

fn parse(template: &Template, payload: &[u8]) -> Result<Request, Rejection> {
    let envelope = Envelope {
        payload,
        message_id: None,
        stream: "JOBS@2026-11-25T01:22:58Z",
        sequence: 7,
        stored_nanos: 1_795_570_978_000_000_000,
    };
    let identity = Identity::of(&envelope).map_err(|(_, rejection)| rejection)?;
    Request::parse(template, identity, payload)
}

#[library_benchmark]
#[bench::small(small())]
#[bench::with_parameters(with_parameters())]
fn request_to_job((template, payload): (Template, &'static [u8])) -> (Vec<u8>, Template) {
    let request = parse(&template, black_box(payload)).unwrap();
    let job = job::build(&request, &template, &TraceContext::default()).unwrap();
    (serde_json::to_vec(&job).unwrap(), template)
}

#[library_benchmark]
#[bench::wrong_type(invalid())]
fn reject((template, payload): (Template, &'static [u8])) -> (Rejection, Template) {
    (parse(&template, black_box(payload)).unwrap_err(), template)
}

fn values((template, payload): (Template, &'static [u8])) -> (Template, BTreeMap<String, String>) {
    let request = parse(&template, payload).unwrap();
    (template, request.values)
}

#[library_benchmark]
#[bench::small(values(small()))]
#[bench::with_parameters(values(with_parameters()))]
fn render((template, values): (Template, BTreeMap<String, String>)) -> (serde_json::Value, Template) {
    (template.render(black_box(&values)).unwrap(), template)
}

#[library_benchmark]
fn decode_watched_job() -> JobState {
    let object: JobObject = serde_json::from_slice(black_box(JOB)).unwrap();
    JobState::from_object(&object).unwrap()
}

#[library_benchmark]
fn decode_watched_pod() -> PodObservation {
    let object: PodObject = serde_json::from_slice(black_box(POD)).unwrap();
    observation(&object, false).unwrap()
}

fn watched_job() -> JobState {
    let object: JobObject = serde_json::from_slice(JOB).unwrap();
    JobState::from_object(&object).unwrap()
}

fn published(event: EventType, resource_version: u64) -> LastEvent {
    LastEvent { uid: watched_job().uid, resource_version, event }
}

#[library_benchmark]
#[bench::changed(Some(published(EventType::Added, 1000)), watched_job())]
#[bench::finished(Some(published(EventType::Modified, 1042)), watched_job())]
fn reconcile_job(last: Option<LastEvent>, job: JobState) -> (Option<Action>, JobState) {
    (reconcile(black_box(last.as_ref()), &job, Source::Watch), job)
}

fn queue() -> (SubjectQueue<()>, JobState) {
    let subject = SubjectState { sequence: 9, last: Some(published(EventType::Added, 1000)) };
    (SubjectQueue::new(subject), watched_job())
}

// A watch event passes the queue of its subject: `MODIFIED` is due, and stored.
#[library_benchmark]
#[bench::modified(queue())]
fn queue_watch_event((mut queue, job): (SubjectQueue<()>, JobState)) -> SubjectQueue<()> {
    queue.enqueue(job, Source::Watch);
    let (_, job, subject) = queue.next(true).unwrap();
    let last = LastEvent {
        uid: job.uid.clone(),
        resource_version: job.resource_version,
        event: EventType::Modified,
    };
    queue
        .complete(ActionResult::Published(SubjectState { sequence: subject.sequence + 1, last: Some(last) }));
    queue
}

fn modified() -> (JobState, LastEvent, EventBody) {
    let body = EventBody::Job(EventType::Modified, None);
    (watched_job(), published(EventType::Modified, 1042), body)
}

fn outcome() -> (JobState, LastEvent, EventBody) {
    let job = watched_job();
    let pod: PodObject = serde_json::from_slice(POD).unwrap();
    let mut outcome = Box::new(job.outcome().unwrap());
    if let Some(PodObservation { state: PodState::Ended { attempt, .. }, .. }) = observation(&pod, false) {
        outcome.attempts = vec![*attempt; 3];
    }
    let body = EventBody::Job(EventType::Outcome, Some(outcome));
    (job, published(EventType::Outcome, 1042), body)
}

#[library_benchmark]
#[bench::modified(modified())]
#[bench::outcome(outcome())]
fn event_payload((job, last, body): (JobState, LastEvent, EventBody)) -> EncodedEvent {
    let body = body.fitting(MAX_EVENT);
    encode(status_event(&job, &last, black_box(&body), "2026-11-25T01:23:02.123Z"), MAX_EVENT).unwrap()
}

/// A log of 64 KiB.
fn log() -> Vec<u8> {
    let line = "2026-11-25T01:23:00Z INFO processed item number 000042 of the customer acme\n";
    line.repeat(65_536 / line.len()).into_bytes()
}

#[library_benchmark]
#[bench::of_64_kib(log())]
fn log_tail(log: Vec<u8>) -> Option<String> {
    let mut reader = LogTailReader::new(20, 4096);
    for chunk in log.chunks(16 * 1024) {
        reader.push(black_box(chunk)).unwrap();
    }
    text::tail(&reader.finish(), 20, 4096)
}

library_benchmark_group!(
    name = hot_paths,
    benchmarks = [
        request_to_job,
        reject,
        render,
        decode_watched_job,
        decode_watched_pod,
        reconcile_job,
        queue_watch_event,
        event_payload,
        log_tail
    ]
);

main!(
    // The C library chooses its string functions by the features of the CPU.
    config = LibraryBenchmarkConfig::default().env("GLIBC_TUNABLES", "glibc.cpu.hwcaps=-AVX2");
    library_benchmark_groups = hot_paths
);
