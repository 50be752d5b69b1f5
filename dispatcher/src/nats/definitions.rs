//! The configurations of the streams and consumers.
//!
//! Pure: `provision` creates and verifies them, and `dispatcher nats-config` prints them.

use std::time::Duration;

use async_nats::jetstream::{
    consumer::{AckPolicy, DeliverPolicy, pull},
    stream::{Config, DiscardPolicy, Republish, RetentionPolicy, StorageType, SubjectTransform},
};
use serde_json::Value;

use dispatcher_core::{
    contract::{
        names::TemplateName,
        nats_names::NatsNames,
        settings::{self, Owner},
    },
    request::ACK_WAIT,
};

/// Metadata key of `JOB_STATUS`: the uid of the Jobs' namespace.
pub(crate) const NAMESPACE_UID: &str = dispatcher_core::contract::names::METADATA_NAMESPACE_UID;

const DAY: Duration = Duration::from_hours(24);
const KIB: i64 = 1024;
const GIB: i64 = KIB * KIB * KIB;

/// The largest request with its headers, in bytes.
const MAX_REQUEST: i32 = 64 * 1024;
/// The largest dead letter: the kept part of the payload, and headers of bounded size.
const MAX_DEAD_LETTER: i32 = 16 * 1024;
/// The queue of one template. Full of the largest requests, it leaves a third of [`JOBS_BYTES`] to
/// the other templates.
const MAX_QUEUED: i64 = 20_000;

// The streams reserve these bytes, 3.3 GiB together. By default, a server's file store is three
// quarters of the free disk.
const JOBS_BYTES: i64 = 2 * GIB;
const JOB_STATUS_BYTES: i64 = GIB;
const JOB_REJECTED_BYTES: i64 = GIB / 4;
const JOB_CANCELS_BYTES: i64 = GIB / 16;
/// 200,000 subjects take up to 76 MB of the server's memory.
const MAX_DEAD_LETTERS: i64 = 200_000;

/// The shortest deduplication window that NATS allows. `JetStream` compares the ids of all templates
/// and publishers, so a window drops a request whose id another client has used. The Job detects a
/// request that is published twice.
const SHORTEST_DUPLICATE_WINDOW: Duration = Duration::from_nanos(settings::SHORTEST_DUPLICATE_WINDOW);

/// `JOBS` for these templates.
///
/// A full subject refuses new requests and drops none. The subject of an unknown template belongs
/// to no stream, so its publisher gets an error.
pub(crate) fn jobs<'a>(names: &NatsNames, templates: impl IntoIterator<Item = &'a TemplateName>) -> Config {
    let subjects: Vec<_> = templates.into_iter().map(|template| names.create_subject(template)).collect();
    Config {
        name: names.jobs().to_owned(),
        description: Some(
            "Requests for Jobs: each message stays until its Job exists or it is rejected".to_owned(),
        ),
        subjects: if subjects.is_empty() { vec![names.no_template_subject()] } else { subjects },
        retention: RetentionPolicy::WorkQueue,
        discard: DiscardPolicy::New,
        discard_new_per_subject: true,
        max_messages_per_subject: MAX_QUEUED,
        max_message_size: MAX_REQUEST,
        max_bytes: JOBS_BYTES,
        duplicate_window: SHORTEST_DUPLICATE_WINDOW,
        ..base()
    }
}

/// `JOB_STATUS`: status events arrive on an inner subject. The stream stores them under the public
/// subject and republishes them to it, so that subscribers never receive a refused event.
pub(crate) fn job_status(names: &NatsNames) -> Config {
    let (inner, public) = names.event_transform();
    Config {
        name: names.job_status().to_owned(),
        description: Some("Status events of each Job, its outcome last".to_owned()),
        subjects: vec![inner.clone()],
        subject_transform: Some(SubjectTransform { source: inner, destination: public.clone() }),
        republish: Some(Republish {
            source: names.status_subjects(),
            destination: public,
            headers_only: false,
        }),
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::Old,
        max_messages_per_subject: 1_000,
        max_age: 30 * DAY,
        max_bytes: JOB_STATUS_BYTES,
        allow_direct: true,
        ..base()
    }
}

/// `JOB_REJECTED`: the dead letters, with the beginning of the payload and the reason in the headers.
/// A full stream drops the oldest ones, so that no rejection has to wait.
pub(crate) fn job_rejected(names: &NatsNames) -> Config {
    Config {
        name: names.job_rejected().to_owned(),
        description: Some("Dead letters: rejected requests with the reason".to_owned()),
        subjects: vec![names.dead_letter_subjects()],
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::Old,
        max_age: 30 * DAY,
        max_messages: MAX_DEAD_LETTERS,
        max_bytes: JOB_REJECTED_BYTES,
        max_message_size: MAX_DEAD_LETTER,
        allow_direct: true,
        ..base()
    }
}

/// The stream of the key-value bucket `JOB_CANCELS`: cancellations until they are complete.
pub(crate) fn job_cancels(names: &NatsNames) -> Config {
    Config {
        name: names.job_cancels().to_owned(),
        description: Some("Cancellations until they are complete".to_owned()),
        subjects: vec![names.cancel_subject(">")],
        retention: RetentionPolicy::Limits,
        // A full bucket refuses new cancellations and drops none.
        discard: DiscardPolicy::New,
        max_messages_per_subject: 1,
        max_message_size: 4 * 1024,
        max_bytes: JOB_CANCELS_BYTES,
        allow_rollup: true,
        deny_delete: true,
        allow_direct: true,
        ..base()
    }
}

fn base() -> Config {
    Config {
        storage: StorageType::File,
        num_replicas: 1,
        max_messages: -1,
        max_messages_per_subject: -1,
        max_bytes: -1,
        max_consumers: -1,
        duplicate_window: Duration::from_mins(2),
        ..Config::default()
    }
}

/// The durable pull consumer of a template.
pub(crate) fn consumer(names: &NatsNames, template: &TemplateName) -> pull::Config {
    pull::Config {
        durable_name: Some(template.consumer_name()),
        name: Some(template.consumer_name()),
        description: Some(format!("Requests of the template {template}")),
        deliver_policy: DeliverPolicy::All,
        ack_policy: AckPolicy::Explicit,
        ack_wait: ACK_WAIT,
        max_deliver: -1,
        max_ack_pending: 10_000,
        filter_subject: names.create_subject(template),
        ..pull::Config::default()
    }
}

/// Every stream with its owner, the one of the requests first.
pub(crate) fn streams<'a>(
    names: &NatsNames,
    templates: impl IntoIterator<Item = &'a TemplateName>,
) -> [(Owner, Config); 4] {
    [
        (Owner::Requests, jobs(names, templates)),
        (Owner::StatusEvents, job_status(names)),
        (Owner::DeadLetters, job_rejected(names)),
        (Owner::Cancellations, job_cancels(names)),
    ]
}

/// Every stream and consumer by name, in the form that the `nats` CLI reads (`--config`).
#[must_use]
pub fn files(names: &NatsNames, templates: &[TemplateName]) -> Vec<(String, Value)> {
    let streams = streams(names, templates).into_iter().map(|(_, stream)| stream);
    let mut files: Vec<_> = streams.map(|stream| (stream.name.clone(), set_fields(&stream))).collect();
    let consumers = templates.iter().map(|template| (template.consumer_name(), consumer(names, template)));
    files.extend(consumers.map(|(name, config)| (name, set_fields(&config))));
    files
}

/// The fields that are not null.
fn set_fields(config: &impl serde::Serialize) -> Value {
    let mut value = serde_json::to_value(config).unwrap_or(Value::Null);
    if let Some(fields) = value.as_object_mut() {
        fields.retain(|_, field| !field.is_null());
    }
    value
}

#[cfg(test)]
mod tests {
    use dispatcher_core::contract::settings::findings;

    use super::*;

    #[test]
    fn shipped_definitions_are_harmless() {
        let template = TemplateName::try_from("simple").unwrap();
        let names = NatsNames::default();
        let consumer_config = serde_json::to_value(consumer(&names, &template)).unwrap();
        let streams = streams(&names, [&template])
            .map(|(owner, stream)| (owner, serde_json::to_value(stream).unwrap()));
        for (owner, shipped) in streams.into_iter().chain([(Owner::Consumer, consumer_config)]) {
            assert_eq!(findings(&names, owner, &shipped, &shipped, 1 << 20), [], "{owner:?}");
        }
    }

    #[test]
    fn ack_wait_is_longer_than_the_handling_of_a_request() {
        use dispatcher_core::request::HANDLE_DEADLINE;

        assert!(ACK_WAIT > HANDLE_DEADLINE + Duration::from_secs(20));
    }

    #[test]
    fn a_dead_letter_has_room_for_the_kept_payload_and_headers() {
        let payload = i32::try_from(dispatcher_core::contract::dead_letter::MAX_PAYLOAD).unwrap();
        assert!(job_rejected(&NatsNames::default()).max_message_size >= payload + 8 * 1024);
    }

    /// A file of the repository.
    fn shipped(file: &str) -> String {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
        std::fs::read_to_string(path).unwrap()
    }

    /// The store of a server's configuration, in GiB: `GB` of a NATS server is a power of two.
    fn max_file_store(file: &str) -> i64 {
        let text = shipped(file);
        let store = text.lines().find_map(|line| line.trim().strip_prefix("max_file_store: ")).unwrap();
        store.strip_suffix("GB").unwrap().parse().unwrap()
    }

    #[test]
    fn the_streams_fit_the_stores_of_the_shipped_servers() {
        let names = NatsNames::default();
        let streams = streams(&names, []).map(|(_, stream)| stream);
        assert!(streams.iter().all(|stream| stream.max_bytes > 0), "a stream without a byte limit");
        let sum: i64 = streams.iter().map(|stream| stream.max_bytes).sum();
        for file in ["nats-config/server.conf", "deploy/nats/nats.conf"] {
            assert!(sum < max_file_store(file) * GIB, "{file}: {sum}");
        }
    }

    /// A tenth of the volume is left for the file system and the server's own files.
    #[test]
    fn the_store_of_with_nats_fits_its_volume() {
        let text = shipped("deploy/nats/nats.yaml");
        let volume = text.lines().find_map(|line| line.trim().strip_prefix("storage: ")).unwrap();
        let volume: i64 = volume.strip_suffix("Gi").unwrap().parse().unwrap();
        assert!(max_file_store("deploy/nats/nats.conf") * 10 <= volume * 9);
    }

    #[test]
    fn full_queue_of_the_largest_requests_leaves_space_in_jobs() {
        assert!(MAX_QUEUED * (i64::from(MAX_REQUEST) + KIB) < JOBS_BYTES / 3 * 2);
    }
}
