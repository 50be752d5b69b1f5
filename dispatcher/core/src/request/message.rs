//! Parses a message: bytes and headers become a valid [`Request`], or a [`Rejection`].

use std::collections::BTreeMap;

use serde_json::Value;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::{
    contract::{
        hex::to_hex,
        names::{JobName, Quoted, RequestId, TemplateName},
        rejection::{Reason, Rejection},
    },
    request::object::{self, ObjectError},
    template::{Template, type_of},
};

/// A message of the stream `JOBS`.
#[derive(Debug, Clone, Copy)]
pub struct Envelope<'a> {
    /// The payload.
    pub payload: &'a [u8],
    /// The header `Nats-Msg-Id`.
    pub message_id: Option<&'a str>,
    /// The stream's name and creation time. With the sequence, they identify a message even if the
    /// stream was recreated.
    pub stream: &'a str,
    /// The message's sequence in the stream.
    pub sequence: u64,
    /// The time at which the stream stored it, in nanoseconds since 1970.
    pub stored_nanos: i128,
}

/// The request id and the request sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The request id.
    pub id: RequestId,
    /// Whether the publisher supplied the id, so that another message may have the same.
    pub client_supplied: bool,
    /// The message's sequence in `JOBS`.
    pub sequence: u64,
}

/// A valid request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The request id and sequence.
    pub identity: Identity,
    /// The template.
    pub template: TemplateName,
    /// The Job's name.
    pub name: JobName,
    /// SHA-256 of the template and the payload in hex, independent of white space and key order.
    pub hash: String,
    /// The values of the parameters, as text.
    pub values: BTreeMap<String, String>,
}

impl Identity {
    /// The identity of a message. The id is its `Nats-Msg-Id`, or a UUID v5 of its position in the
    /// stream and its time.
    ///
    /// # Errors
    /// If the `Nats-Msg-Id` is invalid: the rejection, with the derived identity for it.
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
    let position = format!("{}\n{}\n{}", envelope.stream, envelope.sequence, envelope.stored_nanos);
    Uuid::new_v5(&Uuid::NAMESPACE_OID, position.as_bytes()).into()
}

impl Request {
    /// The hash of a payload, even of an invalid request; `None` if it is not a JSON object.
    #[must_use]
    pub fn hash_of(template: &TemplateName, payload: &[u8]) -> Option<String> {
        Some(hash(template, &fields(payload).ok()?))
    }

    /// Parses a payload as a request of the template.
    ///
    /// # Errors
    /// A [`Rejection`] that names the field, what is allowed and what was found. It has the Job's
    /// name if that is valid, since a Job of that name may exist.
    pub fn parse(template: &Template, identity: Identity, payload: &[u8]) -> Result<Self, Rejection> {
        let fields = fields(payload)?;
        let hash = hash(&template.name, &fields);
        let name = match given_name(&fields, &identity, template)? {
            Some(name) => Ok(name),
            None => default_name(template, &fields),
        };
        if let Some(problem) =
            name.as_ref().ok().and_then(|name| template.name_problem(name).map(|it| (name, it)))
        {
            let (name, problem) = problem;
            let field = ["name", "generateName"].into_iter().find(|field| fields.contains_key(*field));
            let message = format!("`{}`: {problem}", field.unwrap_or("jobName"));
            return Err(Rejection::new(Reason::InvalidName, message).with_name(name));
        }
        let values = template.parameters.texts(&fields).map_err(|message| match &name {
            Ok(name) => invalid(message).with_name(name),
            Err(_) => invalid(message),
        })?;
        let name = name?;
        Ok(Self { identity, template: template.name.clone(), name, hash, values })
    }
}

fn invalid(message: String) -> Rejection {
    Rejection::new(Reason::InvalidRequest, message)
}

/// The fields of a request.
fn fields(payload: &[u8]) -> Result<BTreeMap<String, Value>, Rejection> {
    object::fields(payload).map_err(|error| match error {
        ObjectError::NotJson(message) => Rejection::new(Reason::InvalidJson, message),
        ObjectError::NotAnObject(problem) => invalid(format!("the payload is not a request: {problem}")),
    })
}

fn hash(template: &TemplateName, fields: &BTreeMap<String, Value>) -> String {
    let mut hash = Sha256::new();
    hash.update(template.as_ref());
    for (key, value) in fields {
        hash.update("\n");
        // It cannot fail: the key and the value were JSON, and a hash accepts all bytes.
        let _ = serde_json::to_writer(&mut hash, key);
        hash.update(":");
        let _ = serde_json::to_writer(&mut hash, value);
    }
    to_hex(&hash.finalize())
}

fn given_name(
    fields: &BTreeMap<String, Value>,
    identity: &Identity,
    template: &Template,
) -> Result<Option<JobName>, Rejection> {
    let bad = |field: &str, message: String| {
        Err(Rejection::new(Reason::InvalidName, format!("`{field}`: {message}")))
    };
    match (fields.get("name"), fields.get("generateName")) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => bad("generateName", "not allowed together with `name`".to_owned()),
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
                        "{} cannot start an RFC 1123 label (1 to 51 characters of a-z, 0-9 and '-', \
                         starting with a letter or digit)",
                        Quoted::new(prefix)
                    ),
                ),
            }
        }
        (Some(other), None) => bad("name", expected_string(other)),
        (None, Some(other)) => bad("generateName", expected_string(other)),
    }
}

/// Twelve hexadecimal digits of a UUID v5 of the request id, so that a redelivery gets the same name.
fn suffix(template: &TemplateName, id: &RequestId) -> String {
    let uuid = Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{template}\n{id}").as_bytes());
    uuid.simple().to_string().chars().take(12).collect()
}

fn default_name(template: &Template, fields: &BTreeMap<String, Value>) -> Result<JobName, Rejection> {
    let text = template.job_name.fill(|name| template.parameters.text(name, fields)).unwrap_or_default();
    JobName::try_from(text).map_err(|error| {
        let from: Vec<_> = template.job_name.references().map(|name| format!("`{name}`")).collect();
        let from = from.join(" and ");
        let message = format!("the default name, derived from {from}: {error}; or set `name`");
        Rejection::new(Reason::InvalidName, message)
    })
}

fn expected_string(found: &Value) -> String {
    format!("expected a string, found {}", type_of(found))
}

#[cfg(test)]
pub(super) mod tests;
