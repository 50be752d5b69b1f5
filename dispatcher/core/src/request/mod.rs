//! Bytes and headers → a [`Request`] that cannot be wrong, or a [`Rejection`] that names what is wrong.

pub mod breaker;
pub mod cancellation;
pub mod concurrency;
mod disposition;
pub mod error;
#[cfg(test)]
mod fuzz;
pub mod job;
pub mod poison;
pub mod redelivery;

pub use disposition::Disposition;

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::Value;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::{
    contract::{
        names::{JobName, Quoted, RequestId, TemplateName},
        rejection::{Reason, Rejection},
    },
    template::{Template, type_of},
};

/// How many characters of the JSON library's words are told.
const MAX_WORDS: usize = 300;

/// A message as it came out of `JOBS`.
#[derive(Debug, Clone, Copy)]
pub struct Envelope<'a> {
    /// The payload.
    pub payload: &'a [u8],
    /// The header `Nats-Msg-Id`.
    pub message_id: Option<&'a str>,
    /// The stream's name and creation time: with the sequence they name a message for all times.
    pub stream: &'a str,
    /// The message's sequence in the stream.
    pub sequence: u64,
    /// When the stream stored it, in nanoseconds since 1970.
    pub stored_nanos: i128,
}

/// Who a request is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The identity.
    pub id: RequestId,
    /// Whether the publisher gave it, so that another message may carry the same.
    pub client_supplied: bool,
    /// The message's sequence in `JOBS`.
    pub sequence: u64,
}

/// A request that can become a Job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Who it is.
    pub identity: Identity,
    /// The template of Job.
    pub template: TemplateName,
    /// The Job's name.
    pub name: JobName,
    /// SHA-256 of template and payload, whatever the order of keys and the white space, in hex.
    pub hash: String,
    /// The parameters' values.
    pub values: BTreeMap<String, String>,
}

impl Identity {
    /// The identity of a message: its `Nats-Msg-Id`, or a UUID v5 of where and when it was stored.
    ///
    /// # Errors
    /// The derived identity beside the rejection, where the given one is invalid.
    pub fn of(envelope: &Envelope<'_>) -> Result<Self, (Self, Rejection)> {
        let derived =
            || Self { id: derived_id(envelope), client_supplied: false, sequence: envelope.sequence };
        match envelope.message_id {
            None => Ok(derived()),
            Some(text) => match RequestId::try_from(text) {
                Ok(id) => Ok(Self { id, client_supplied: true, sequence: envelope.sequence }),
                Err(error) => Err((
                    derived(),
                    Rejection::new(Reason::InvalidRequestId, format!("header `Nats-Msg-Id`: {error}")),
                )),
            },
        }
    }
}

fn derived_id(envelope: &Envelope<'_>) -> RequestId {
    let place = format!("{}\n{}\n{}", envelope.stream, envelope.sequence, envelope.stored_nanos);
    Uuid::new_v5(&Uuid::NAMESPACE_OID, place.as_bytes()).into()
}

impl Request {
    /// The hash of a payload, also of one that is no valid request; `None` where it is no JSON object.
    pub fn hash_of(template: &TemplateName, payload: &[u8]) -> Option<String> {
        Some(hash(template, &fields(payload).ok()?))
    }

    /// Reads a payload as a request of the template's template.
    ///
    /// # Errors
    /// A [`Rejection`] that names the field, what was found and what is allowed; with the name, where that is valid.
    pub fn parse(template: &Template, identity: Identity, payload: &[u8]) -> Result<Self, Rejection> {
        let fields = fields(payload)?;
        let hash = hash(&template.name, &fields);
        let name = match given_name(&fields, &identity, template)? {
            Some(name) => Ok(name),
            None => default_name(template, &fields),
        };
        // A rejection of wrong values tells the name too, where there is one: something may be known of it.
        let values = template.parameters.texts(&fields).map_err(|message| match &name {
            Ok(name) => invalid(message).of(name),
            Err(_) => invalid(message),
        })?;
        let name = name?;
        Ok(Self { identity, template: template.name.clone(), name, hash, values })
    }
}

fn invalid(message: String) -> Rejection {
    Rejection::new(Reason::InvalidRequest, message)
}

/// The keys of a JSON object, each once.
struct Fields(BTreeMap<String, Value>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = Fields;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = BTreeMap::new();
                while let Some((key, value)) = map.next_entry::<String, Value>()? {
                    if fields.contains_key(&key) {
                        let key = Quoted::new(&key);
                        return Err(serde::de::Error::custom(format_args!("the field {key} is given twice")));
                    }
                    fields.insert(key, value);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Keys)
    }
}

fn fields(payload: &[u8]) -> Result<BTreeMap<String, Value>, Rejection> {
    let text = std::str::from_utf8(payload).map_err(|e| {
        let message = format!("the payload is not UTF-8: the byte at offset {} is none", e.valid_up_to());
        Rejection::new(Reason::InvalidJson, message)
    })?;
    match serde_json::from_str::<Fields>(text) {
        Ok(Fields(fields)) => Ok(fields),
        Err(error) if error.is_data() => {
            // The library's own words for what is no object hold the whole value.
            let told = match type_by_first(text) {
                "an object" => error.to_string().chars().take(MAX_WORDS).collect(),
                other => format!("found {other}, allowed is a JSON object"),
            };
            Err(invalid(format!("the payload is no request: {told}")))
        }
        Err(error) => {
            let found =
                if text.trim().is_empty() { "nothing".to_owned() } else { Quoted::new(text).to_string() };
            let message =
                format!("the payload is not JSON: {error}; found {found}, allowed is a JSON object");
            Err(Rejection::new(Reason::InvalidJson, message))
        }
    }
}

/// The type of a JSON text, by its first character.
fn type_by_first(text: &str) -> &'static str {
    match text.trim_start().chars().next() {
        Some('{') => "an object",
        Some('[') => "an array",
        Some('"') => "a string",
        Some('t' | 'f') => "a boolean",
        Some('n') => "null",
        _ => "a number",
    }
}

fn hash(template: &TemplateName, fields: &BTreeMap<String, Value>) -> String {
    let mut hash = Sha256::new();
    hash.update(template.as_ref());
    for (key, value) in fields {
        hash.update(format!("\n{}:{}", Value::from(key.as_str()), value));
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn given_name(
    fields: &BTreeMap<String, Value>,
    identity: &Identity,
    template: &Template,
) -> Result<Option<JobName>, Rejection> {
    let bad = |field: &str, message: String| {
        Err(Rejection::new(Reason::InvalidName, format!("field `{field}`: {message}")))
    };
    match (fields.get("name"), fields.get("generateName")) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => {
            bad("generateName", "`name` is given too, allowed is one of the two".to_owned())
        }
        (Some(Value::String(name)), None) => match JobName::try_from(name.as_str()) {
            Ok(name) => Ok(Some(name)),
            Err(error) => bad("name", error.to_string()),
        },
        (None, Some(Value::String(prefix))) => {
            let name = format!("{prefix}{}", suffix(&template.name, &identity.id));
            match JobName::try_from(name) {
                Ok(name) => Ok(Some(name)),
                Err(_) => bad(
                    "generateName",
                    format!(
                        "{} cannot begin an RFC 1123 label: allowed are 1 to 51 characters of a-z, 0-9 and '-', \
                         beginning with a letter or digit",
                        Quoted::new(prefix)
                    ),
                ),
            }
        }
        (Some(other), None) => bad("name", expected_string(other)),
        (None, Some(other)) => bad("generateName", expected_string(other)),
    }
}

/// Twelve hexadecimal digits of a UUID v5 of the identity: a redelivered message always yields the same name.
fn suffix(template: &TemplateName, id: &RequestId) -> String {
    let uuid = Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{template}\n{id}").as_bytes());
    uuid.simple().to_string().chars().take(12).collect()
}

fn default_name(template: &Template, fields: &BTreeMap<String, Value>) -> Result<JobName, Rejection> {
    let text = template.job_name.fill(|name| template.parameters.text(name, fields)).unwrap_or_default();
    JobName::try_from(text).map_err(|error| {
        let from: Vec<_> = template.job_name.references().map(|name| format!("`{name}`")).collect();
        let message =
            format!("the default name, made from field {}: {error}; or give a `name`", from.join(" and "));
        Rejection::new(Reason::InvalidName, message)
    })
}

fn expected_string(found: &Value) -> String {
    format!("found {}, allowed is a string", type_of(found))
}

#[cfg(test)]
pub(super) mod tests;
