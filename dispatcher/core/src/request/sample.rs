//! A valid request of a template, as an example for its users.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::{
    contract::trace::TraceContext,
    request::{Envelope, Identity, Request, job},
    template::Template,
};

/// A request that the template accepts and whose Job the limits allow; `None` if the search finds no
/// such request, since a schema can be too intricate.
#[must_use]
pub fn sample(template: &Template) -> Option<Value> {
    let samples = template.parameters.samples(|name| template.job_name.references().any(|it| it == name));
    samples
        .into_iter()
        .flat_map(|fields| with_name(template, fields))
        .find(|fields| is_valid(template, fields))
}

/// The fields; then the same with a name, in case that they give the Job no valid default name.
fn with_name(template: &Template, fields: BTreeMap<String, Value>) -> [Value; 2] {
    let fields: Map<String, Value> = fields.into_iter().collect();
    let mut named = fields.clone();
    named.insert("name".to_owned(), template.sample_name().into());
    [fields.into(), named.into()]
}

fn is_valid(template: &Template, fields: &Value) -> bool {
    let payload = fields.to_string();
    let envelope = Envelope {
        payload: payload.as_bytes(),
        message_id: Some("sample"),
        stream: "",
        sequence: 0,
        stored_nanos: 0,
    };
    let request = Identity::of(&envelope)
        .map_err(|(_, rejection)| rejection)
        .and_then(|identity| Request::parse(template, identity, envelope.payload));
    request.and_then(|request| job::build(&request, template, &TraceContext::default())).is_ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{changed, shipped_limits, simple};

    const MEMORY: &str = include_str!("../../../../deploy/templates/memory.yaml");
    const DUMP: &str = include_str!("../../../../deploy/examples/dump.yaml");
    const REPORT: &str = include_str!("../../../../deploy/examples/my-template/report.yaml");

    /// A template with these parameters, which are all required, and a fixed default name.
    fn template(properties: &Value) -> Template {
        let mut template: Value = serde_json::from_str(&changed("/spec/suspend", &json!(true))).unwrap();
        let names: Vec<&String> = properties.as_object().unwrap().keys().collect();
        template["spec"]["parameters"] = json!({"type": "object", "properties": properties, "required": names,
            "$defs": {"size": {"type": "string", "format": "kubernetes-quantity", "x-minimum": "2Gi"}}});
        template["spec"]["jobName"] = "fixed".into();
        let env = "/spec/job/spec/template/spec/containers/0/env";
        *template.pointer_mut(env).unwrap() = json!([]);
        Template::parse(&template.to_string()).unwrap()
    }

    #[test]
    fn shipped_template_has_a_valid_sample() {
        assert_eq!(sample(&simple()), Some(json!({"foo": "x"})));
        for text in [MEMORY, DUMP, REPORT] {
            let template = Template::parse(text).unwrap();
            assert!(sample(&template).is_some(), "{}", template.name);
        }
    }

    #[test]
    fn sample_satisfies_each_kind_of_schema() {
        for schema in [
            json!({"enum": ["b", 2]}),
            json!({"const": 7}),
            json!({"type": "string", "pattern": "^(ab|cd){2,3}-[0-9]{4}$"}),
            json!({"type": "string", "pattern": "^[a-z]+$", "minLength": 20}),
            json!({"type": "string", "pattern": "^\\d+\\.\\d+\\.\\d+$"}),
            json!({"type": "string", "minLength": 5, "maxLength": 5}),
            json!({"type": "string", "format": "date-time"}),
            json!({"type": "string", "format": "ipv6"}),
            json!({"type": "string", "format": "uuid"}),
            json!({"type": "integer", "minimum": 10, "multipleOf": 7}),
            json!({"type": "integer", "maximum": -3}),
            json!({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}),
            json!({"type": "number", "minimum": 0.5, "maximum": 0.6}),
            json!({"type": "boolean"}),
            json!({"$ref": "#/$defs/size"}),
            json!({"$ref": "#/$defs/size", "x-maximum": "3Gi"}),
            json!({"anyOf": [{"type": "string", "maxLength": 0}, {"type": "integer", "minimum": 5}]}),
            json!({"allOf": [{"type": "string"}, {"pattern": "^v[0-9]$"}]}),
            json!({"type": "string", "not": {"const": "x"}, "examples": ["y"]}),
            json!({}),
        ] {
            let found = sample(&template(&json!({"p": schema})));
            assert!(found.is_some(), "{schema}");
        }
    }

    #[test]
    fn sample_has_the_fields_that_conditions_require() {
        let text = serde_json::to_string(&json!({"type": "object", "properties": {
            "a": {"type": "string"}, "b": {"enum": ["on"]}, "c": {"type": "integer"}},
            "required": ["a"], "dependentRequired": {"a": ["b"]},
            "if": {"properties": {"b": {"const": "on"}}, "required": ["b"]}, "then": {"required": ["c"]}}));
        let mut template: Value = serde_json::from_str(&changed("/spec/suspend", &json!(true))).unwrap();
        template["spec"]["parameters"] = serde_json::from_str(&text.unwrap()).unwrap();
        template["spec"]["jobName"] = "fixed".into();
        *template.pointer_mut("/spec/job/spec/template/spec/containers/0/env").unwrap() = json!([]);
        let found = sample(&Template::parse(&template.to_string()).unwrap()).unwrap();
        assert_eq!(found, json!({"a": "x", "b": "on", "c": 1}));
    }

    #[test]
    fn sample_gives_a_valid_name_and_an_allowed_job() {
        let mut value: Value =
            serde_json::from_str(&changed("/spec/template/spec/priorityClassName", &json!("${foo}")))
                .unwrap();
        value["spec"]["parameters"]["properties"]["foo"] =
            json!({"enum": ["system-node-critical", "Low", "low"]});
        let limited =
            Template::parse(&value.to_string()).unwrap().with_policy(shipped_limits().into()).unwrap();
        assert_eq!(sample(&limited), Some(json!({"foo": "low"})));
        let unsatisfiable = template(&json!({"p": {"type": "string", "minLength": 3, "maxLength": 2}}));
        assert_eq!(sample(&unsatisfiable), None);
    }
}
