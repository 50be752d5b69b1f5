//! Patches: JSON merge patch (RFC 7386), JSON patch (RFC 6902), and a subset of strategic merge
//! patch.

use serde_json::Value;

use crate::error::{ApiError, ApiResult};

/// A type of patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PatchType {
    Merge,
    Json,
    /// Merges known lists by their merge key. The only supported directive is `$patch: delete`.
    Strategic,
    /// Server-side apply without field ownership: creates an absent object, or merges.
    Apply,
}

impl PatchType {
    /// Selects the patch type by its media type.
    ///
    /// # Errors
    /// 415 for an unknown media type.
    pub(crate) fn from_content_type(content_type: &str) -> ApiResult<Self> {
        match content_type.split(';').next().unwrap_or_default().trim() {
            "application/merge-patch+json" => Ok(Self::Merge),
            "application/json-patch+json" => Ok(Self::Json),
            "application/strategic-merge-patch+json" => Ok(Self::Strategic),
            "application/apply-patch+yaml" => Ok(Self::Apply),
            other => Err(ApiError::unsupported_media_type(other)),
        }
    }

    /// Applies the patch to an object.
    ///
    /// # Errors
    /// 400 for a malformed patch, 422 for a JSON patch that does not apply to the object.
    pub(crate) fn apply(self, object: &Value, patch: &Value) -> ApiResult<Value> {
        let mut patched = object.clone();
        match self {
            Self::Json => {
                let patch: json_patch::Patch = serde_json::from_value(patch.clone())
                    .map_err(|error| ApiError::bad_request(format!("error decoding patch: {error}")))?;
                json_patch::patch(&mut patched, &patch).map_err(|error| ApiError {
                    message: format!(
                        "the server rejected our request due to an error in our request: {error}"
                    ),
                    ..ApiError::from_code(422)
                })?;
            }
            _ if !patch.is_object() => {
                return Err(ApiError::bad_request("error decoding patch: not an object"));
            }
            Self::Merge => json_patch::merge(&mut patched, patch),
            Self::Strategic | Self::Apply => merge_strategic(&mut patched, patch, ""),
        }
        Ok(patched)
    }
}

/// The key that identifies the elements of a list.
fn merge_key(list: &str) -> Option<&'static str> {
    match list {
        "conditions" => Some("type"),
        "containers" | "initContainers" | "env" | "volumes" | "containerStatuses" => Some("name"),
        "ownerReferences" => Some("uid"),
        _ => None,
    }
}

/// Whether a list of scalars is merged as a set.
fn is_set_list(list: &str) -> bool {
    list == "finalizers"
}

fn merge_strategic(target: &mut Value, patch: &Value, field: &str) {
    match (target, patch) {
        (Value::Object(target), Value::Object(patch)) => {
            for (key, value) in patch.iter().filter(|(key, _)| !key.starts_with('$')) {
                if value.is_null() {
                    target.remove(key);
                } else if value.is_object() || value.is_array() {
                    merge_strategic(target.entry(key.clone()).or_insert(Value::Null), value, key);
                } else {
                    target.insert(key.clone(), value.clone());
                }
            }
        }
        (Value::Array(target), Value::Array(patch)) if is_set_list(field) => {
            for value in patch {
                if !target.contains(value) {
                    target.push(value.clone());
                }
            }
        }
        (Value::Array(target), Value::Array(patch)) if merge_key(field).is_some() => {
            let key = merge_key(field).unwrap_or_default();
            for value in patch {
                let same = |found: &&mut Value| found.get(key).is_some() && found.get(key) == value.get(key);
                if value.get("$patch") == Some(&"delete".into()) {
                    target.retain(|found| found.get(key) != value.get(key));
                    continue;
                }
                match target.iter_mut().find(same) {
                    Some(found) => merge_strategic(found, value, ""),
                    None => target.push(value.clone()),
                }
            }
        }
        (target, patch) if patch.is_object() && !target.is_object() => {
            *target = Value::Object(serde_json::Map::new());
            merge_strategic(target, patch, field);
        }
        (target, patch) => *target = patch.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn merge_patch_sets_and_removes_fields_and_replaces_lists() {
        let object = json!({"a": 1, "b": {"c": 2, "d": 3}, "l": [1, 2]});
        let patched = PatchType::Merge.apply(&object, &json!({"a": null, "b": {"c": 4}, "l": [3]})).unwrap();
        assert_eq!(patched, json!({"b": {"c": 4, "d": 3}, "l": [3]}));
    }

    #[test]
    fn strategic_patch_merges_lists_by_key() {
        let object = json!({"conditions": [{"type": "A", "status": "True"}], "finalizers": ["x"]});
        let patch =
            json!({"conditions": [{"type": "A", "status": "False"}, {"type": "B"}], "finalizers": ["y"]});
        let patched = PatchType::Strategic.apply(&object, &patch).unwrap();
        let expected = json!({"conditions": [{"type": "A", "status": "False"}, {"type": "B"}], "finalizers": ["x", "y"]});
        assert_eq!(patched, expected);
    }

    #[test]
    fn strategic_patch_deletes_list_elements() {
        let object = json!({"env": [{"name": "A"}, {"name": "B"}]});
        let patch = json!({"env": [{"$patch": "delete", "name": "A"}], "$setElementOrder/env": []});
        assert_eq!(PatchType::Strategic.apply(&object, &patch).unwrap(), json!({"env": [{"name": "B"}]}));
    }

    #[test]
    fn inapplicable_json_patch_is_422_and_malformed_patch_400() {
        let test = json!([{"op": "test", "path": "/a", "value": 2}, {"op": "remove", "path": "/a"}]);
        assert_eq!(PatchType::Json.apply(&json!({"a": 1}), &test).unwrap_err().code, 422);
        assert_eq!(PatchType::Json.apply(&json!({"a": 2}), &test).unwrap(), json!({}));
        assert_eq!(PatchType::Json.apply(&json!({}), &json!({"op": 1})).unwrap_err().code, 400);
        assert_eq!(PatchType::Merge.apply(&json!({}), &json!([])).unwrap_err().code, 400);
        assert_eq!(PatchType::from_content_type("text/plain").unwrap_err().code, 415);
    }
}
