//! Parses bytes as one JSON object, as requests and the calls of the NATS service are.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::Value;

use crate::contract::names::Quoted;

/// The longest message of the JSON library, in characters.
const MAX_LIBRARY_MESSAGE: usize = 300;

/// Why a payload is not a JSON object. Each message names the expected and the actual type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ObjectError {
    /// Not JSON in UTF-8, or nested too deeply.
    #[error("{0}")]
    NotJson(String),
    /// JSON, but not an object, or an object with a repeated field.
    #[error("{0}")]
    NotAnObject(String),
}

/// The fields of a JSON object without duplicates.
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
                        return Err(serde::de::Error::custom(format_args!("duplicate field {key}")));
                    }
                    fields.insert(key, value);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Keys)
    }
}

/// The fields of the JSON object in `payload`. An array of the values is refused.
///
/// # Errors
/// [`ObjectError`] if the payload is anything else.
pub fn fields(payload: &[u8]) -> Result<BTreeMap<String, Value>, ObjectError> {
    let text = std::str::from_utf8(payload).map_err(|e| {
        let offset = e.valid_up_to();
        ObjectError::NotJson(format!("the payload is not UTF-8: invalid byte at offset {offset}"))
    })?;
    match serde_json::from_str::<Fields>(text) {
        Ok(Fields(fields)) => Ok(fields),
        Err(error) if error.is_data() => {
            // The library's message for other types than objects contains the whole value.
            Err(ObjectError::NotAnObject(match type_by_first_char(text) {
                "an object" => error.to_string().chars().take(MAX_LIBRARY_MESSAGE).collect(),
                other => format!("expected a JSON object, found {other}"),
            }))
        }
        Err(error) => Err(ObjectError::NotJson(if text.trim().is_empty() {
            "the payload is empty: expected a JSON object".to_owned()
        } else {
            let found = Quoted::new(text);
            format!("the payload is not JSON: {error}; expected a JSON object, found {found}")
        })),
    }
}

/// The type of a JSON text, by its first character.
fn type_by_first_char(text: &str) -> &'static str {
    match text.trim_start().chars().next() {
        Some('{') => "an object",
        Some('[') => "an array",
        Some('"') => "a string",
        Some('t' | 'f') => "a boolean",
        Some('n') => "null",
        _ => "a number",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn array_of_the_values_of_an_object_is_not_an_object() {
        for (payload, found) in [
            (r#"["a"]"#, "an array"),
            ("[]", "an array"),
            (r#"["a",null]"#, "an array"),
            (r#""a""#, "a string"),
            ("7", "a number"),
            ("true", "a boolean"),
            ("null", "null"),
        ] {
            let error = fields(payload.as_bytes()).unwrap_err();
            let expected = format!("expected a JSON object, found {found}");
            assert_eq!(error, ObjectError::NotAnObject(expected), "{payload}");
        }
    }

    #[test]
    fn repeated_field_is_named() {
        let error = fields(br#"{"a":1,"\u0061":2}"#).unwrap_err();
        assert!(error.to_string().contains(r#"duplicate field "a""#), "{error}");
    }

    #[test]
    fn text_that_is_not_json_is_quoted_and_bounded() {
        let deep = format!("{{\"a\":{}", "[".repeat(1000));
        for payload in ["{", "{'a':1}", "{\"a\":1,}", &deep] {
            let error = fields(payload.as_bytes()).unwrap_err();
            assert!(matches!(&error, ObjectError::NotJson(text) if text.len() < 500), "{error}");
        }
        assert!(fields(b"").unwrap_err().to_string().contains("empty"));
        assert!(fields(b"{\xff}").unwrap_err().to_string().contains("offset 1"));
    }
}
