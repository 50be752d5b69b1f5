//! The streams and consumers as resources of NACK, the controller that keeps JetStream as Kubernetes objects say. Pure.
//!
//! Made of what `nats-config/*.json` has, field by field: one that a resource cannot say is an error, never left out.

use serde_json::{Map, Value, json};

use crate::nats::definitions::{self, JOBS};
use dispatcher_core::contract::names::TemplateName;

/// Of NACK's CRDs.
const API_VERSION: &str = "jetstream.nats.io/v1beta2";

/// A field that NACK's resources cannot say.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{object}: a resource of NACK cannot say {field}: {value}")]
pub struct UnsupportedField {
    object: String,
    field: String,
    value: Value,
}

/// How a field of the server's is written in a resource.
enum NackOutput {
    As(&'static str),
    /// Nanoseconds there, a text here.
    Duration(&'static str),
    /// An object, by the names of its own fields.
    Object(&'static str, &'static [(&'static str, &'static str)]),
    /// LastEvent by another field.
    Elsewhere,
}

const REPUBLISH: &[(&str, &str)] = &[("src", "source"), ("dest", "destination")];
const TRANSFORM: &[(&str, &str)] = &[("src", "source"), ("dest", "dest")];

fn of_stream(field: &str) -> Option<NackOutput> {
    Some(match field {
        "allow_direct" => NackOutput::As("allowDirect"),
        "allow_rollup_hdrs" => NackOutput::As("allowRollup"),
        "deny_delete" => NackOutput::As("denyDelete"),
        "description" => NackOutput::As("description"),
        "discard" => NackOutput::As("discard"),
        "discard_new_per_subject" => NackOutput::As("discardPerSubject"),
        "duplicate_window" => NackOutput::Duration("duplicateWindow"),
        "max_age" => NackOutput::Duration("maxAge"),
        "max_bytes" => NackOutput::As("maxBytes"),
        "max_consumers" => NackOutput::As("maxConsumers"),
        "max_msg_size" => NackOutput::As("maxMsgSize"),
        "max_msgs" => NackOutput::As("maxMsgs"),
        "max_msgs_per_subject" => NackOutput::As("maxMsgsPerSubject"),
        "name" => NackOutput::As("name"),
        "num_replicas" => NackOutput::As("replicas"),
        "republish" => NackOutput::Object("republish", REPUBLISH),
        "retention" => NackOutput::As("retention"),
        "storage" => NackOutput::As("storage"),
        "subject_transform" => NackOutput::Object("subjectTransform", TRANSFORM),
        "subjects" => NackOutput::As("subjects"),
        _ => return None,
    })
}

fn of_consumer(field: &str) -> Option<NackOutput> {
    Some(match field {
        "ack_policy" => NackOutput::As("ackPolicy"),
        "ack_wait" => NackOutput::Duration("ackWait"),
        "deliver_policy" => NackOutput::As("deliverPolicy"),
        "description" => NackOutput::As("description"),
        "durable_name" => NackOutput::As("durableName"),
        "filter_subject" => NackOutput::As("filterSubject"),
        "max_ack_pending" => NackOutput::As("maxAckPending"),
        "max_deliver" => NackOutput::As("maxDeliver"),
        "name" => NackOutput::Elsewhere,
        "replay_policy" => NackOutput::As("replayPolicy"),
        _ => return None,
    })
}

/// A resource for every stream and consumer. Deleted, they leave what they stand for: the streams hold what nothing else does.
///
/// # Errors
/// [`UnsupportedField`].
pub fn resources(templates: &[TemplateName]) -> Result<Vec<Value>, UnsupportedField> {
    let files = definitions::files(templates);
    files.iter().map(|(name, config)| resource(name, config)).collect()
}

fn resource(name: &str, config: &Value) -> Result<Value, UnsupportedField> {
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
    how: fn(&str) -> Option<NackOutput>,
) -> Result<Map<String, Value>, UnsupportedField> {
    let mut spec = Map::new();
    for (field, value) in config.as_object().into_iter().flatten() {
        let unsaid =
            || UnsupportedField { object: object.to_owned(), field: field.clone(), value: value.clone() };
        let (name, value) = match how(field).ok_or_else(unsaid)? {
            NackOutput::As(name) => (name, value.clone()),
            NackOutput::Duration(name) => (name, value.as_u64().map(duration).ok_or_else(unsaid)?.into()),
            NackOutput::Object(name, fields) => (name, renamed(value, fields).ok_or_else(unsaid)?),
            NackOutput::Elsewhere => continue,
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

    fn templates() -> Vec<TemplateName> {
        ["simple", "memory"].map(|template| TemplateName::try_from(template).unwrap()).to_vec()
    }

    #[test]
    fn each_stream_and_consumer_is_a_resource() {
        let resources = resources(&templates()).unwrap();
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
