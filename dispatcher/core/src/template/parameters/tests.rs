use serde_json::json;

use super::*;

fn parameters(properties: Value, required: &[&str]) -> Parameters {
    let schema = json!({"type": "object", "properties": properties, "required": required});
    Parameters::read(schema.as_object().unwrap().clone()).unwrap()
}

fn fields(value: Value) -> BTreeMap<String, Value> {
    serde_json::from_value(value).unwrap()
}

/// What is said of a single parameter `p` with this schema and value.
fn told(schema: Value, value: Value) -> String {
    parameters(json!({"p": schema}), &[]).texts(&fields(json!({"p": value}))).unwrap_err()
}

#[test]
fn what_a_schema_does_not_allow_is_told_with_what_was_found_and_what_is_allowed() {
    for (schema, value, expected) in [
        (json!({"type": "string"}), json!(1), "field `p`: found a number, allowed is a string"),
        (json!({"type": "integer"}), json!(1.5), "field `p`: found 1.5, allowed is a whole number"),
        (
            json!({"type": ["integer", "boolean"]}),
            json!("x"),
            "field `p`: found a string, allowed is a boolean or a whole number",
        ),
        (json!({"type": "integer", "minimum": 1}), json!(0), "field `p`: found 0, allowed is at least 1"),
        (json!({"type": "integer", "maximum": 9}), json!(10), "field `p`: found 10, allowed is at most 9"),
        (
            json!({"type": "number", "exclusiveMinimum": 0}),
            json!(0),
            "field `p`: found 0, allowed is more than 0",
        ),
        (
            json!({"type": "number", "multipleOf": 5}),
            json!(7),
            "field `p`: found 7, allowed are multiples of 5",
        ),
        (json!({"enum": ["a", 1, true]}), json!("b"), "field `p`: found \"b\", allowed are \"a\", 1, true"),
        (json!({"const": "a"}), json!("b"), "field `p`: found \"b\", must be \"a\""),
        (
            json!({"type": "string", "minLength": 2}),
            json!("b"),
            "field `p`: found 1 characters, allowed are at least 2",
        ),
        (
            json!({"type": "string", "pattern": "^a+$"}),
            json!("b"),
            "field `p`: found \"b\", allowed is what matches \"^a+$\"",
        ),
        (
            json!({"type": "string", "format": "date"}),
            json!("b"),
            "field `p`: found \"b\", allowed is a text of the format date",
        ),
        (
            json!({"type": "string", "format": "kubernetes-quantity"}),
            json!("64 Mi"),
            "field `p`: found \"64 Mi\", allowed is a Kubernetes quantity such as 64Mi, 1.5G or 100m",
        ),
        (json!({"not": {"const": "a"}}), json!("a"), "field `p`: is not as the schema's \"not\" says"),
        (json!({}), json!([1]), "field `p`: found an array, allowed is a string, a number or a boolean"),
        (json!({}), json!(null), "field `p`: found null, allowed is a string, a number or a boolean"),
        (
            json!({}),
            json!("a\u{0}"),
            "field `p`: found a NUL character, which no variable or argument can hold",
        ),
        (json!({}), json!("x".repeat(4097)), "field `p`: found 4097 characters, allowed are at most 4096"),
    ] {
        assert_eq!(told(schema.clone(), value), expected, "{schema}");
    }
}

#[test]
fn what_is_told_is_bounded_and_echoes_no_long_value() {
    let long = "secret".repeat(500);
    let many: Vec<_> = (0..1000).map(|i| format!("option-{i}")).collect();
    for schema in [
        json!({"enum": many}),
        json!({"pattern": format!("^({})$", many.join("|"))}),
        json!({"format": "date"}),
        json!({"maxLength": 3}),
        json!({"not": {"type": "string"}}),
    ] {
        let told = told(schema.clone(), json!(long));
        assert!(told.len() < 500 && !told.contains(&"secret".repeat(20)), "{schema}: {told}");
    }
}

#[test]
fn several_wrong_fields_are_told_at_once_and_in_order() {
    let string = json!({"type": "string"});
    let parameters = parameters(json!({"a": string, "b": string, "c": string, "d": string}), &["d"]);
    let told = parameters.texts(&fields(json!({"c": 1, "b": [], "a": null}))).unwrap_err();
    assert_eq!(
        told,
        "field `a`: found null, allowed is a string; field `b`: found an array, allowed is a string; \
         field `c`: found a number, allowed is a string; and 1 more"
    );
}

#[test]
fn an_unknown_field_is_told_with_those_that_are_known() {
    let told = parameters(json!({"a": {}}), &[]).texts(&fields(json!({"x\r\ny": 1}))).unwrap_err();
    assert_eq!(told, "field \"x\\r\\ny\": is no parameter, allowed are a, name, generateName");
}

#[test]
fn values_become_their_texts() {
    let parameters = parameters(json!({"s": {}, "n": {"type": "integer"}, "b": {"type": "boolean"}}), &[]);
    let texts = parameters.texts(&fields(json!({"s": "a\n", "n": 7.0, "b": false, "name": "x"}))).unwrap();
    let expected = [("s", "a\n"), ("n", "7"), ("b", "false")];
    assert_eq!(texts, expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
}

#[test]
fn a_default_stands_in_for_what_is_absent() {
    let parameters = parameters(json!({"n": {"type": "integer", "default": 7}, "s": {}}), &[]);
    assert_eq!(parameters.texts(&fields(json!({}))).unwrap()["n"], "7");
    assert_eq!(parameters.texts(&fields(json!({"n": 8}))).unwrap()["n"], "8");
    assert!(parameters.is_always_there("n") && !parameters.is_always_there("s"));
}

#[test]
fn conditions_of_the_schema_hold_for_the_whole_request() {
    let schema = json!({
        "type": "object",
        "properties": {"from": {"$ref": "#/$defs/day"}, "to": {"$ref": "#/$defs/day"}},
        "dependentRequired": {"from": ["to"]},
        "$defs": {"day": {"type": "string", "format": "date"}},
    });
    let parameters = Parameters::read(schema.as_object().unwrap().clone()).unwrap();
    assert!(parameters.texts(&fields(json!({"from": "2026-01-01", "to": "2026-01-02"}))).is_ok());
    let told = parameters.texts(&fields(json!({"from": "2026-01-01"}))).unwrap_err();
    assert_eq!(told, "field `to`: is missing, but required");
}

#[test]
fn the_schema_of_a_request_knows_the_reserved_keys_and_no_others() {
    let schema = parameters(json!({"a": {"type": "string"}}), &["a"]).request_schema();
    let validator = jsonschema::draft202012::new(&schema).unwrap();
    assert!(validator.is_valid(&json!({"a": "x", "name": "n"})));
    for wrong in [json!({}), json!({"a": 1}), json!({"a": "x", "b": 1}), json!([])] {
        assert!(!validator.is_valid(&wrong), "{wrong}");
    }
}
