use serde_json::json;

use super::*;

fn parameters(properties: Value, required: &[&str]) -> Parameters {
    let schema = json!({"type": "object", "properties": properties, "required": required});
    Parameters::parse(schema.as_object().unwrap().clone()).unwrap()
}

fn fields(value: Value) -> BTreeMap<String, Value> {
    serde_json::from_value(value).unwrap()
}

/// The message about a single parameter `p` with this schema and an invalid value.
fn message(schema: Value, value: Value) -> String {
    parameters(json!({"p": schema}), &[]).texts(&fields(json!({"p": value}))).unwrap_err()
}

#[test]
fn invalid_value_is_reported_with_the_rule_and_the_value() {
    for (schema, value, expected) in [
        (json!({"type": "string"}), json!(1), "`p`: expected a string, found a number"),
        (json!({"type": "integer"}), json!(1.5), "`p`: expected a whole number, found 1.5"),
        (
            json!({"type": ["integer", "boolean"]}),
            json!("x"),
            "`p`: expected a boolean or a whole number, found a string",
        ),
        (json!({"type": "integer", "minimum": 1}), json!(0), "`p`: expected at least 1, found 0"),
        (json!({"type": "integer", "maximum": 9}), json!(10), "`p`: expected at most 9, found 10"),
        (json!({"type": "number", "exclusiveMinimum": 0}), json!(0), "`p`: expected more than 0, found 0"),
        (json!({"type": "number", "multipleOf": 5}), json!(7), "`p`: expected a multiple of 5, found 7"),
        (json!({"enum": ["a", 1, true]}), json!("b"), "`p`: found \"b\" (allowed: \"a\", 1, true)"),
        (json!({"const": "a"}), json!("b"), "`p`: expected \"a\", found \"b\""),
        (
            json!({"type": "string", "minLength": 2}),
            json!("b"),
            "`p`: expected at least 2 characters, found 1",
        ),
        (
            json!({"type": "string", "pattern": "^a+$"}),
            json!("b"),
            "`p`: expected a match of the pattern \"^a+$\", found \"b\"",
        ),
        (
            json!({"type": "string", "format": "date"}),
            json!("b"),
            "`p`: expected the format date, found \"b\"",
        ),
        (
            json!({"type": "string", "format": "kubernetes-quantity"}),
            json!("64 Mi"),
            "`p`: expected a Kubernetes quantity such as 64Mi, 1.5G or 100m, found \"64 Mi\"",
        ),
        (json!({"not": {"const": "a"}}), json!("a"), "`p`: does not satisfy the schema keyword \"not\""),
        (json!({}), json!([1]), "`p`: expected a string, a number or a boolean, found an array"),
        (json!({}), json!(null), "`p`: expected a string, a number or a boolean, found null"),
        (json!({}), json!("a\u{0}"), "`p`: contains a NUL character, which no variable or argument can hold"),
        (json!({}), json!("x".repeat(4097)), "`p`: expected at most 4096 characters, found 4097"),
    ] {
        assert_eq!(message(schema.clone(), value), expected, "{schema}");
    }
}

#[test]
fn quantity_is_compared_with_its_bounds_by_value() {
    let schema = json!({"type": "string", "x-minimum": "16Mi", "x-maximum": "1Gi"});
    let reference = json!({"$ref": "#/$defs/bytes"});
    let parameters = |schema: &Value| {
        let all =
            json!({"type": "object", "properties": {"p": schema}, "$defs": {"bytes": {"x-maximum": 100}}});
        Parameters::parse(all.as_object().unwrap().clone()).unwrap()
    };
    for good in ["16Mi", "16777216", "1000M", "1Gi", "1073741824", "0.5G"] {
        assert!(parameters(&schema).texts(&fields(json!({"p": good}))).is_ok(), "{good}");
    }
    for (schema, bad, expected) in [
        (&schema, json!("16M"), "`p`: expected at least 16Mi, found 16M"),
        (&schema, json!("-1Gi"), "`p`: expected at least 16Mi, found -1Gi"),
        (&schema, json!("1e10"), "`p`: expected at most 1Gi, found 1e10"),
        (&schema, json!("1073741824.5"), "`p`: expected at most 1Gi, found 1073741824.5"),
        (&schema, json!("much"), "`p`: expected a Kubernetes quantity such as 64Mi, 1.5G or 100m"),
        (&reference, json!(101), "`p`: expected at most 100, found 101"),
        (&reference, json!("1k"), "`p`: expected at most 100, found 1k"),
    ] {
        assert_eq!(parameters(schema).texts(&fields(json!({"p": bad}))).unwrap_err(), expected);
    }
}

#[test]
fn bounds_of_a_quantity_must_leave_a_value() {
    let invalid = |schema: Value| {
        let all = json!({"type": "object", "properties": {"p": schema}});
        let problems = Parameters::parse(all.as_object().unwrap().clone()).unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:?}");
        problems[0].to_string()
    };
    let at = "parameters.properties.p";
    assert_eq!(
        invalid(json!({"x-minimum": "2Gi", "x-maximum": "2G"})),
        format!("{at}.x-minimum: is more than `x-maximum`, 2G")
    );
    assert_eq!(
        invalid(json!({"x-maximum": "much"})),
        format!("{at}.x-maximum: expected a Kubernetes quantity such as 64Mi, 1.5G or 100m")
    );
    assert_eq!(
        invalid(json!({"x-maximum": ["1"]})),
        format!("{at}.x-maximum: expected a string, a number or a boolean, found an array")
    );
    assert_eq!(
        invalid(json!({"type": "integer", "x-maximum": "1"})),
        format!("{at}.x-maximum: is for quantities; use `maximum` for a number")
    );
    assert_eq!(
        invalid(json!({"x-maximum": "1Gi", "default": "2Gi"})),
        format!("{at}.default: expected at most 1Gi, found 2Gi")
    );
}

#[test]
fn message_is_bounded_and_repeats_no_long_value() {
    let long = "secret".repeat(500);
    let many: Vec<_> = (0..1000).map(|i| format!("option-{i}")).collect();
    for schema in [
        json!({"enum": many}),
        json!({"pattern": format!("^({})$", many.join("|"))}),
        json!({"format": "date"}),
        json!({"maxLength": 3}),
        json!({"not": {"type": "string"}}),
    ] {
        let message = message(schema.clone(), json!(long));
        assert!(message.len() < 500 && !message.contains(&"secret".repeat(20)), "{schema}: {message}");
    }
}

#[test]
fn several_invalid_fields_are_reported_in_order() {
    let string = json!({"type": "string"});
    let parameters = parameters(json!({"a": string, "b": string, "c": string, "d": string}), &["d"]);
    let message = parameters.texts(&fields(json!({"c": 1, "b": [], "a": null}))).unwrap_err();
    assert_eq!(
        message,
        "`a`: expected a string, found null; `b`: expected a string, found an array; \
         `c`: expected a string, found a number; and 1 more"
    );
}

#[test]
fn unknown_field_is_reported_with_the_allowed_ones() {
    let message = parameters(json!({"a": {}}), &[]).texts(&fields(json!({"x\r\ny": 1}))).unwrap_err();
    assert_eq!(message, "unknown field \"x\\r\\ny\" (allowed: a, generateName, name)");
}

#[test]
fn values_convert_to_text() {
    let parameters = parameters(json!({"s": {}, "n": {"type": "integer"}, "b": {"type": "boolean"}}), &[]);
    let texts = parameters.texts(&fields(json!({"s": "a\n", "n": 7.0, "b": false, "name": "x"}))).unwrap();
    let expected = [("s", "a\n"), ("n", "7"), ("b", "false")];
    assert_eq!(texts, expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
}

#[test]
fn absent_parameter_has_its_default() {
    let parameters = parameters(json!({"n": {"type": "integer", "default": 7}, "s": {}}), &[]);
    assert_eq!(parameters.texts(&fields(json!({}))).unwrap()["n"], "7");
    assert_eq!(parameters.texts(&fields(json!({"n": 8}))).unwrap()["n"], "8");
    assert!(parameters.always_has_value("n") && !parameters.always_has_value("s"));
}

#[test]
fn conditional_keywords_apply_to_the_whole_request() {
    let schema = json!({
        "type": "object",
        "properties": {"from": {"$ref": "#/$defs/day"}, "to": {"$ref": "#/$defs/day"}},
        "dependentRequired": {"from": ["to"]},
        "$defs": {"day": {"type": "string", "format": "date"}},
    });
    let parameters = Parameters::parse(schema.as_object().unwrap().clone()).unwrap();
    assert!(parameters.texts(&fields(json!({"from": "2026-01-01", "to": "2026-01-02"}))).is_ok());
    let message = parameters.texts(&fields(json!({"from": "2026-01-01"}))).unwrap_err();
    assert_eq!(message, "`to`: required field is missing");
}

#[test]
fn request_schema_has_the_reserved_fields_and_no_others() {
    let schema = parameters(json!({"a": {"type": "string"}}), &["a"]).request_schema("");
    let validator = jsonschema::draft202012::new(&schema).unwrap();
    assert!(validator.is_valid(&json!({"a": "x", "name": "n"})));
    for invalid in [json!({}), json!({"a": 1}), json!({"a": "x", "b": 1}), json!([])] {
        assert!(!validator.is_valid(&invalid), "{invalid}");
    }
}
