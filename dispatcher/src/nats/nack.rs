//! The streams and consumers as resources of NACK, the `JetStream` controller for Kubernetes.
//!
//! Pure. Converts each field of `nats-config/*.json`. A field without a counterpart is an error.

use dispatcher_core::contract::{names::TemplateName, nats_names::NatsNames};
use serde_json::{Map, Value, json};

use crate::nats::definitions;

/// The API version of NACK's CRDs.
const API_VERSION: &str = "jetstream.nats.io/v1beta2";

/// A field without a counterpart in NACK's resources.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{object}: NACK has no field for {field}: {value}")]
pub struct UnsupportedField {
    object: String,
    field: String,
    value: Value,
}

/// How a resource contains a field of the server's configuration.
enum NackOutput {
    /// Unchanged, under this name.
    Same(&'static str),
    /// As text instead of nanoseconds, under this name.
    Duration(&'static str),
    /// As an object, under this name and with these names for its fields.
    Object(&'static str, &'static [(&'static str, &'static str)]),
    /// Not at all: another field implies it.
    Implied,
}

const REPUBLISH: &[(&str, &str)] = &[("src", "source"), ("dest", "destination")];
const TRANSFORM: &[(&str, &str)] = &[("src", "source"), ("dest", "dest")];

fn stream_field(field: &str) -> Option<NackOutput> {
    Some(match field {
        "allow_direct" => NackOutput::Same("allowDirect"),
        "allow_rollup_hdrs" => NackOutput::Same("allowRollup"),
        "deny_delete" => NackOutput::Same("denyDelete"),
        "description" => NackOutput::Same("description"),
        "discard" => NackOutput::Same("discard"),
        "discard_new_per_subject" => NackOutput::Same("discardPerSubject"),
        "duplicate_window" => NackOutput::Duration("duplicateWindow"),
        "max_age" => NackOutput::Duration("maxAge"),
        "max_bytes" => NackOutput::Same("maxBytes"),
        "max_consumers" => NackOutput::Same("maxConsumers"),
        "max_msg_size" => NackOutput::Same("maxMsgSize"),
        "max_msgs" => NackOutput::Same("maxMsgs"),
        "max_msgs_per_subject" => NackOutput::Same("maxMsgsPerSubject"),
        "name" => NackOutput::Same("name"),
        "num_replicas" => NackOutput::Same("replicas"),
        "republish" => NackOutput::Object("republish", REPUBLISH),
        "retention" => NackOutput::Same("retention"),
        "storage" => NackOutput::Same("storage"),
        "subject_transform" => NackOutput::Object("subjectTransform", TRANSFORM),
        "subjects" => NackOutput::Same("subjects"),
        _ => return None,
    })
}

fn consumer_field(field: &str) -> Option<NackOutput> {
    Some(match field {
        "ack_policy" => NackOutput::Same("ackPolicy"),
        "ack_wait" => NackOutput::Duration("ackWait"),
        "deliver_policy" => NackOutput::Same("deliverPolicy"),
        "description" => NackOutput::Same("description"),
        "durable_name" => NackOutput::Same("durableName"),
        "filter_subject" => NackOutput::Same("filterSubject"),
        "max_ack_pending" => NackOutput::Same("maxAckPending"),
        "max_deliver" => NackOutput::Same("maxDeliver"),
        "name" => NackOutput::Implied,
        "replay_policy" => NackOutput::Same("replayPolicy"),
        _ => return None,
    })
}

/// A resource for every stream and consumer. Deleting a resource keeps its stream
/// (`preventDelete`), because nothing else holds the stream's messages.
///
/// # Errors
/// [`UnsupportedField`] for the first field that NACK cannot express.
pub fn resources(names: &NatsNames, templates: &[TemplateName]) -> Result<Vec<Value>, UnsupportedField> {
    let files = definitions::files(names, templates);
    files.iter().map(|(name, config)| resource(names, name, config)).collect()
}

fn resource(names: &NatsNames, name: &str, config: &Value) -> Result<Value, UnsupportedField> {
    let is_consumer = config.get("durable_name").is_some();
    let mut spec = convert(name, config, if is_consumer { consumer_field } else { stream_field })?;
    spec.insert("preventDelete".to_owned(), true.into());
    if is_consumer {
        spec.insert("streamName".to_owned(), names.jobs().into());
    }
    Ok(json!({
        "apiVersion": API_VERSION,
        "kind": if is_consumer { "Consumer" } else { "Stream" },
        // Kubernetes allows neither underscores nor capital letters.
        "metadata": {"name": name.to_lowercase().replace('_', "-")},
        "spec": spec,
    }))
}

fn convert(
    object: &str,
    config: &Value,
    output: fn(&str) -> Option<NackOutput>,
) -> Result<Map<String, Value>, UnsupportedField> {
    let mut spec = Map::new();
    for (field, value) in config.as_object().into_iter().flatten() {
        let unsupported =
            || UnsupportedField { object: object.to_owned(), field: field.clone(), value: value.clone() };
        let (name, value) = match output(field).ok_or_else(unsupported)? {
            NackOutput::Same(name) => (name, value.clone()),
            NackOutput::Duration(name) => {
                (name, value.as_u64().map(duration).ok_or_else(unsupported)?.into())
            }
            NackOutput::Object(name, fields) => (name, renamed(value, fields).ok_or_else(unsupported)?),
            NackOutput::Implied => continue,
        };
        spec.insert(name.to_owned(), value);
    }
    Ok(spec)
}

/// The object with renamed fields. `None` if a field has no new name and is not false.
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

/// A duration as Go parses it. NACK takes a missing duration for a year, so zero is `0s`.
fn duration(nanoseconds: u64) -> String {
    const MILLISECOND: u64 = 1_000_000;
    const SECOND: u64 = 1000 * MILLISECOND;
    let units = [(3600 * SECOND, "h"), (60 * SECOND, "m"), (SECOND, "s"), (MILLISECOND, "ms"), (1, "ns")];
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
    fn each_stream_and_consumer_has_a_resource() {
        let resources = resources(&NatsNames::default(), &templates()).unwrap();
        let names: Vec<_> =
            resources.iter().map(|resource| resource["metadata"]["name"].as_str().unwrap()).collect();
        let streams = ["jobs", "job-status", "job-rejected", "kv-job-cancels"];
        assert_eq!(names, [&streams[..], &["dispatcher-simple", "dispatcher-memory"]].concat());
        assert_eq!(resources[0]["spec"]["subjects"], json!(["jobs.simple.create", "jobs.memory.create"]));
        assert_eq!(resources[0]["spec"]["maxAge"], "0s");
        assert_eq!(resources[4]["spec"]["streamName"], "JOBS");
    }

    #[test]
    fn an_unsupported_field_is_an_error() {
        let error =
            resource(&NatsNames::default(), "S", &json!({"name": "S", "mirror": {"name": "T"}})).unwrap_err();
        assert_eq!(error.to_string(), r#"S: NACK has no field for mirror: {"name":"T"}"#);
        let republish = |headers_only: bool| json!({"republish": {"src": "a", "dest": "b", "headers_only": headers_only}});
        assert_eq!(
            resource(&NatsNames::default(), "S", &republish(false)).unwrap()["spec"]["republish"],
            json!({"source": "a", "destination": "b"})
        );
        assert!(resource(&NatsNames::default(), "S", &republish(true)).is_err());
        assert!(resource(&NatsNames::default(), "S", &json!({"max_age": "a day"})).is_err());
    }

    #[test]
    fn go_parses_the_durations() {
        let second = 1_000_000_000;
        let texts = [0, 60 * second, 90 * second, 720 * 3600 * second, second / 10, 100].map(duration);
        assert_eq!(texts, ["0s", "1m", "90s", "720h", "100ms", "100ns"]);
    }
}
