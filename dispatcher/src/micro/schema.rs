//! The JSON Schemas (draft 2020-12) in the metadata of the endpoints: what to send, and what comes back. Pure.

use std::collections::HashMap;

use serde_json::{Value, json};

use dispatcher_core::{contract::schemas, template::Template};

const DRAFT: &str = "https://json-schema.org/draft/2020-12/schema";
const LABEL: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";

/// The metadata of an endpoint: `request_schema` and `response_schema`, each as text.
pub fn metadata(request: &Value, response: &Value) -> HashMap<String, String> {
    HashMap::from([
        ("request_schema".to_owned(), request.to_string()),
        ("response_schema".to_owned(), response.to_string()),
    ])
}

/// A request of a template: its template's schema, and the reserved keys.
pub fn request(template: &Template) -> Value {
    template.parameters.request_schema()
}

/// The answer of `submit` without `Job-Wait`.
pub fn accepted() -> Value {
    json!({"$schema": DRAFT, "type": "object",
        "description": "the request is stored; with the header Job-Wait an event in its place",
        "properties": {"name": name(), "requestId": {"type": "string"}, "requestSeq": {"type": "integer"},
            "template": {"type": "string"}, "statusSubject": {"type": "string"}},
        "required": ["name", "requestId", "requestSeq", "template", "statusSubject"]})
}

/// A query by name.
pub fn by_name() -> Value {
    json!({"$schema": DRAFT, "type": "object", "properties": {"name": name()}, "required": ["name"],
           "additionalProperties": false})
}

/// A query by name or by identity.
pub fn by_name_or_id() -> Value {
    json!({"$schema": DRAFT, "type": "object", "additionalProperties": false, "minProperties": 1, "maxProperties": 1,
           "properties": {"name": name(), "requestId": {"type": "string", "minLength": 1, "maxLength": 256}}})
}

/// The answer of `cancel`.
pub fn cancelled() -> Value {
    json!({"$schema": DRAFT, "type": "object",
        "properties": {"result": {"enum": ["deleted", "pending", "finished"]}, "template": {"type": "string"},
            "name": name()},
        "required": ["result", "template", "name"]})
}

/// A status event, as it is stored.
pub fn event() -> Value {
    schemas::status_event()
}

fn name() -> Value {
    json!({"type": "string", "pattern": LABEL, "maxLength": 63, "description": "a Job's name"})
}

#[cfg(test)]
mod tests {
    use super::*;
    use dispatcher_core::testing::simple;

    #[test]
    fn a_request_is_described_by_its_parameters() {
        let schema = request(&simple());
        assert_eq!(schema["required"], json!(["foo"]));
        assert_eq!(schema["properties"]["foo"]["maxLength"], 1024);
        assert!(schema["properties"]["fail"]["type"].is_null(), "anything");
        assert_eq!(schema["properties"]["name"]["maxLength"], 63);
        assert_eq!(schema["additionalProperties"], false);
    }
}
