//! The streams and consumers as resources of NACK, the controller that keeps JetStream as Kubernetes objects say. Pure.
//!
//! Made of what `nats-config/*.json` has, field by field: one that a resource cannot say is an error, never left out.

use serde_json::{Map, Value, json};

use super::definitions::{self, JOBS};
use crate::contract::names::Kind;

/// Of NACK's CRDs.
const API_VERSION: &str = "jetstream.nats.io/v1beta2";

/// A field that NACK's resources cannot say.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{object}: a resource of NACK cannot say {field}: {value}")]
pub struct Unsaid {
    object: String,
    field: String,
    value: Value,
}

/// How a field of the server's is written in a resource.
enum Written {
    As(&'static str),
    /// Nanoseconds there, a text here.
    Duration(&'static str),
    /// An object, by the names of its own fields.
    Object(&'static str, &'static [(&'static str, &'static str)]),
    /// Said by another field.
    Elsewhere,
}

const REPUBLISH: &[(&str, &str)] = &[("src", "source"), ("dest", "destination")];
const TRANSFORM: &[(&str, &str)] = &[("src", "source"), ("dest", "dest")];

fn of_stream(field: &str) -> Option<Written> {
    Some(match field {
        "allow_direct" => Written::As("allowDirect"),
        "allow_rollup_hdrs" => Written::As("allowRollup"),
        "deny_delete" => Written::As("denyDelete"),
        "description" => Written::As("description"),
        "discard" => Written::As("discard"),
        "discard_new_per_subject" => Written::As("discardPerSubject"),
        "duplicate_window" => Written::Duration("duplicateWindow"),
        "max_age" => Written::Duration("maxAge"),
        "max_bytes" => Written::As("maxBytes"),
        "max_consumers" => Written::As("maxConsumers"),
        "max_msg_size" => Written::As("maxMsgSize"),
        "max_msgs" => Written::As("maxMsgs"),
        "max_msgs_per_subject" => Written::As("maxMsgsPerSubject"),
        "name" => Written::As("name"),
        "num_replicas" => Written::As("replicas"),
        "republish" => Written::Object("republish", REPUBLISH),
        "retention" => Written::As("retention"),
        "storage" => Written::As("storage"),
        "subject_transform" => Written::Object("subjectTransform", TRANSFORM),
        "subjects" => Written::As("subjects"),
        _ => return None,
    })
}

fn of_consumer(field: &str) -> Option<Written> {
    Some(match field {
        "ack_policy" => Written::As("ackPolicy"),
        "ack_wait" => Written::Duration("ackWait"),
        "deliver_policy" => Written::As("deliverPolicy"),
        "description" => Written::As("description"),
        "durable_name" => Written::As("durableName"),
        "filter_subject" => Written::As("filterSubject"),
        "max_ack_pending" => Written::As("maxAckPending"),
        "max_deliver" => Written::As("maxDeliver"),
        "name" => Written::Elsewhere,
        "replay_policy" => Written::As("replayPolicy"),
        _ => return None,
    })
}

/// A resource for every stream and consumer. Deleted, they leave what they stand for: the streams hold what nothing else does.
///
/// # Errors
/// [`Unsaid`].
pub fn resources(kinds: &[Kind]) -> Result<Vec<Value>, Unsaid> {
    let files = definitions::files(kinds);
    files.iter().map(|(name, config)| resource(name, config)).collect()
}

fn resource(name: &str, config: &Value) -> Result<Value, Unsaid> {
    let is_consumer = config.get("durable_name").is_some();
    let mut spec = written(name, config, if is_consumer { of_consumer } else { of_stream })?;
    spec.insert("preventDelete".to_owned(), true.into());
    if is_consumer {
        spec.insert("streamName".to_owned(), JOBS.into());
    }
    Ok(json!({
        "apiVersion": API_VERSION,
        "kind": if is_consumer { "Consumer" } else { "Stream" },
        // Kubernetes allows no underscore, and no capitals.
        "metadata": {"name": name.to_lowercase().replace('_', "-")},
        "spec": spec,
    }))
}

fn written(
    object: &str,
    config: &Value,
    how: fn(&str) -> Option<Written>,
) -> Result<Map<String, Value>, Unsaid> {
    let mut spec = Map::new();
    for (field, value) in config.as_object().into_iter().flatten() {
        let unsaid = || Unsaid { object: object.to_owned(), field: field.clone(), value: value.clone() };
        let (name, value) = match how(field).ok_or_else(unsaid)? {
            Written::As(name) => (name, value.clone()),
            Written::Duration(name) => (name, value.as_u64().map(duration).ok_or_else(unsaid)?.into()),
            Written::Object(name, fields) => (name, renamed(value, fields).ok_or_else(unsaid)?),
            Written::Elsewhere => continue,
        };
        spec.insert(name.to_owned(), value);
    }
    Ok(spec)
}

/// An object with other names for its fields; `None` where one has none. What is false or empty needs none.
fn renamed(object: &Value, names: &[(&str, &str)]) -> Option<Value> {
    let mut renamed = Map::new();
    for (field, value) in object.as_object()? {
        match names.iter().find(|(from, _)| from == field) {
            Some((_, to)) => drop(renamed.insert((*to).to_owned(), value.clone())),
            None if value == false => {}
            None => return None,
        }
    }
    Some(Value::Object(renamed))
}

/// Nanoseconds as Go reads them. None is said as `0s`: left out, it would be a year to NACK.
fn duration(nanoseconds: u64) -> String {
    const SECOND: u64 = 1_000_000_000;
    let units = [(3600 * SECOND, "h"), (60 * SECOND, "m"), (SECOND, "s"), (1, "ns")];
    let whole = units.iter().find(|(unit, _)| nanoseconds != 0 && nanoseconds.is_multiple_of(*unit));
    whole.map_or_else(|| "0s".to_owned(), |(unit, name)| format!("{}{name}", nanoseconds / unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds() -> Vec<Kind> {
        ["simple", "memory"].map(|kind| Kind::try_from(kind).unwrap()).to_vec()
    }

    #[test]
    fn each_stream_and_consumer_is_a_resource() {
        let resources = resources(&kinds()).unwrap();
        let names: Vec<_> =
            resources.iter().map(|resource| resource["metadata"]["name"].as_str().unwrap()).collect();
        let streams = ["jobs", "job-status", "job-rejected", "kv-job-cancels"];
        assert_eq!(names, [&streams[..], &["dispatcher-simple", "dispatcher-memory"]].concat());
        assert_eq!(resources[0]["spec"]["subjects"], json!(["jobs.simple.create", "jobs.memory.create"]));
        assert_eq!(resources[0]["spec"]["maxAge"], "0s");
        assert_eq!(resources[4]["spec"]["streamName"], "JOBS");
    }

    #[test]
    fn a_field_that_a_resource_cannot_say_is_an_error() {
        let unsaid = resource("S", &json!({"name": "S", "mirror": {"name": "T"}})).unwrap_err();
        assert_eq!(unsaid.to_string(), r#"S: a resource of NACK cannot say mirror: {"name":"T"}"#);
        let republish = |headers_only: bool| json!({"republish": {"src": "a", "dest": "b", "headers_only": headers_only}});
        assert_eq!(
            resource("S", &republish(false)).unwrap()["spec"]["republish"],
            json!({"source": "a", "destination": "b"})
        );
        assert!(resource("S", &republish(true)).is_err());
        assert!(resource("S", &json!({"max_age": "a day"})).is_err());
    }

    #[test]
    fn durations_are_as_go_reads_them() {
        let second = 1_000_000_000;
        let texts = [0, 60 * second, 90 * second, 720 * 3600 * second, 100].map(duration);
        assert_eq!(texts, ["0s", "1m", "90s", "720h", "100ns"]);
    }
}
