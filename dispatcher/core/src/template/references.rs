//! The names of objects that the pods of a template need. Names that a parameter decides are unknown.

use serde_json::Value;

use crate::template::pattern::Pattern;

/// Names in a manifest, by the kind of the object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct References {
    /// `serviceAccountName`, or `default`.
    pub service_accounts: Vec<String>,
    /// `imagePullSecrets`.
    pub image_pull_secrets: Vec<String>,
    /// `priorityClassName`.
    pub priority_classes: Vec<String>,
}

impl References {
    pub(super) fn of(manifest: &Value) -> Self {
        let pod = manifest.pointer("/spec/template/spec");
        let field = |name: &str| pod.and_then(|pod| pod.get(name));
        let account = field("serviceAccountName").or_else(|| field("serviceAccount"));
        let default = Value::from("default");
        let secrets = field("imagePullSecrets").and_then(Value::as_array).into_iter().flatten();
        Self {
            service_accounts: fixed(account.or(Some(&default))).collect(),
            image_pull_secrets: secrets.flat_map(|secret| fixed(secret.get("name"))).collect(),
            priority_classes: fixed(field("priorityClassName")).collect(),
        }
    }
}

/// The text, if no parameter changes it.
fn fixed(value: Option<&Value>) -> impl Iterator<Item = String> {
    let text = value.and_then(Value::as_str).filter(|text| !text.is_empty());
    let pattern = text.and_then(|text| Pattern::parse(text).ok());
    pattern
        .filter(|pattern| pattern.references().next().is_none())
        .zip(text)
        .map(|(_, text)| text.to_owned())
        .into_iter()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(pod: Value) -> References {
        References::of(&json!({"spec": {"template": {"spec": pod}}}))
    }

    #[test]
    fn names_are_read_from_the_pod_template() {
        let pod = json!({"serviceAccountName": "job", "priorityClassName": "high",
                         "imagePullSecrets": [{"name": "registry"}, {}]});
        let expected = References {
            service_accounts: vec!["job".to_owned()],
            image_pull_secrets: vec!["registry".to_owned()],
            priority_classes: vec!["high".to_owned()],
        };
        assert_eq!(of(pod), expected);
    }

    #[test]
    fn pods_without_an_account_use_the_default_one() {
        assert_eq!(of(json!({})).service_accounts, ["default"]);
    }

    #[test]
    fn name_of_a_parameter_is_unknown() {
        let pod = json!({"serviceAccountName": "${account}", "priorityClassName": "p-${level}"});
        assert_eq!(of(pod), References::default());
    }
}
