//! The JSON Schemas of what stands on the wire and in template files, generated from the types: `docs/schemas/`.

use serde_json::Value;

use crate::{
    contract::{event::StatusEvent, rejection::RejectedNotice},
    template,
};

/// Each file's name, and the schema.
pub fn files() -> Vec<(String, Value)> {
    vec![
        ("rejected-notice".to_owned(), schemars::schema_for!(RejectedNotice).to_value()),
        ("status-event".to_owned(), status_event()),
        ("template".to_owned(), template::schema()),
    ]
}

/// The schema of a status event.
pub fn status_event() -> Value {
    schemars::schema_for!(StatusEvent).to_value()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;

    #[test]
    fn the_published_schemas_are_those_of_the_types() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/schemas");
        for (name, schema) in files() {
            let path = folder.join(format!("{name}.json"));
            let published = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(
                published == format!("{schema:#}\n"),
                "{} is stale: `make schemas` writes it anew",
                path.display()
            );
        }
    }

    #[test]
    fn the_schemas_allow_what_the_contract_shows() {
        let is_valid = |name: &str, value: &Value| {
            let (_, schema) = files().into_iter().find(|(file, _)| file == name).unwrap();
            jsonschema::draft202012::new(&schema).unwrap().is_valid(value)
        };
        let event = json!({
            "type": "OUTCOME", "template": "simple", "name": "simple-job-15", "namespace": "jobs", "uid": "u",
            "requestId": "r", "requestSeq": 17, "resourceVersion": "903", "time": "2026-01-01T10:00:00.123Z",
            "status": {"failed": 4},
            "outcome": {"result": "Failed", "reason": "BackoffLimitExceeded", "succeeded": 0, "failed": 4},
        });
        assert!(is_valid("status-event", &event));
        for (field, wrong) in [("type", "DONE"), ("name", "A.B"), ("requestSeq", "17")] {
            let mut event = event.clone();
            event[field] = wrong.into();
            assert!(!is_valid("status-event", &event), "{field}");
        }
        let notice = json!({
            "type": "REJECTED", "template": "simple", "requestId": "r", "requestSeq": 3, "time": "2026-01-01T10:00:00.010Z",
            "reason": "InvalidRequest", "message": "field `foo`: is missing, but required",
        });
        assert!(is_valid("rejected-notice", &notice));
        for (field, wrong) in
            [("type", "OUTCOME"), ("template", "A.B"), ("requestSeq", "3"), ("reason", "Whatever")]
        {
            let mut notice = notice.clone();
            notice[field] = wrong.into();
            assert!(!is_valid("rejected-notice", &notice), "{field}");
        }
    }
}
