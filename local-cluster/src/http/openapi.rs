//! `OpenAPI` v3 documents, as far as `kubectl` needs them: which resources support server-side field
//! validation and dry runs. They have no schemas, so `kubectl explain` does not work.

use serde_json::{Map, Value, json};

use crate::resource::{ALL, Resource};

/// The document at a path.
pub(super) fn document(segments: &[&str]) -> Option<Value> {
    match segments {
        [] => Some(json!({"paths": index()})),
        ["api", "v1"] => Some(group_version("", "v1")),
        ["apis", group, "v1"] if ALL.into_iter().any(|resource| resource.group == *group) => {
            Some(group_version(group, "v1"))
        }
        _ => None,
    }
}

/// The path of each group version, with the address of its document.
fn index() -> Map<String, Value> {
    let entry = |resource: &Resource| {
        let path = path(resource);
        let address = format!("/openapi/v3/{path}");
        (path, json!({"serverRelativeURL": address}))
    };
    ALL.into_iter().map(entry).collect()
}

fn path(resource: &Resource) -> String {
    match resource.group {
        "" => format!("api/{}", resource.version),
        group => format!("apis/{group}/{}", resource.version),
    }
}

fn group_version(group: &str, version: &str) -> Value {
    let resources = ALL.into_iter().filter(|resource| resource.group == group && resource.version == version);
    let paths: Map<_, _> = resources.map(|resource| (object_path(resource), operations(resource))).collect();
    json!({"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": version}, "paths": paths,
        "components": {"schemas": {}}})
}

fn object_path(resource: &Resource) -> String {
    let namespace = if resource.namespaced { "/namespaces/{namespace}" } else { "" };
    format!("/{}{namespace}/{}/{{name}}", path(resource), resource.plural)
}

/// `kubectl` looks for the query parameters of the operation `patch`.
fn operations(resource: &Resource) -> Value {
    let parameter = |name: &str| json!({"name": name, "in": "query", "schema": {"type": "string"}});
    let parameters: Vec<_> = ["dryRun", "fieldManager", "fieldValidation"].map(parameter).into();
    json!({"patch": {
        "x-kubernetes-action": "patch",
        "x-kubernetes-group-version-kind":
            {"group": resource.group, "version": resource.version, "kind": resource.kind},
        "parameters": parameters,
        "responses": {"200": {"description": "OK"}},
    }})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_indexed_document_exists_and_validates_fields() {
        let index = index();
        assert!(index.contains_key("api/v1") && index.contains_key("apis/batch/v1"), "{index:?}");
        for (path, entry) in index {
            assert_eq!(entry["serverRelativeURL"], format!("/openapi/v3/{path}"));
            let document = document(&path.split('/').collect::<Vec<_>>()).unwrap();
            for (name, operations) in document["paths"].as_object().unwrap() {
                let parameters = operations["patch"]["parameters"].as_array().unwrap();
                assert!(parameters.iter().any(|parameter| parameter["name"] == "fieldValidation"), "{name}");
            }
        }
        assert_eq!(document(&["apis", "apps", "v1"]), None);
    }
}
