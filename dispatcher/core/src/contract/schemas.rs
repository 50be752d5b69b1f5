//! The JSON Schemas of events, rejection notices and template files, for `docs/schemas/`.

use serde_json::Value;

use crate::{
    contract::{event::StatusEvent, rejection::RejectedNotice},
    template,
};

/// Each schema with the name of its file, without the extension.
#[must_use]
pub fn files() -> Vec<(String, Value)> {
    vec![
        ("rejected-notice".to_owned(), schemars::schema_for!(RejectedNotice).to_value()),
        ("status-event".to_owned(), status_event()),
        ("template".to_owned(), template::schema()),
    ]
}

/// The schema of a status event.
#[must_use]
pub fn status_event() -> Value {
    schemars::schema_for!(StatusEvent).to_value()
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "the test reads the published schemas")]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;

    #[test]
    fn published_schemas_match_the_types() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/schemas");
        for (name, schema) in files() {
            let path = folder.join(format!("{name}.json"));
            let published = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(published == format!("{schema:#}\n"), "{} is stale; run `make schemas`", path.display());
        }
    }

    #[test]
    fn schemas_accept_the_examples_of_the_protocol_and_nothing_else() {
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
            "reason": "InvalidRequest", "message": "`foo`: required field is missing",
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
