//! JSON scalars as text: what a parameter's value becomes in a manifest.

use serde_json::{Number, Value};

use crate::template::schema_errors;

/// From here on an IEEE 754 double does not hold every whole number (RFC 8259, section 6).
const EXACT: f64 = 9_007_199_254_740_992.0;

/// The text of a scalar: a string as it is, `true`, `false`, a whole number without a fraction.
///
/// # Errors
/// Arrays, objects and `null`; and a number that was not kept exactly when the request was read.
pub(super) fn text(value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Bool(value) => Ok(value.to_string()),
        Value::Number(number) => number_text(number),
        other => Err(format!(
            "found {}, allowed is a string, a number or a boolean",
            schema_errors::type_of(other)
        )),
    }
}

fn number_text(number: &Number) -> Result<String, String> {
    match number.as_f64().filter(|_| number.is_f64()) {
        None => Ok(number.to_string()),
        Some(float) if float.abs() >= EXACT => Err(format!(
            "found {number}, which is not kept exactly, allowed are numbers up to {EXACT}; or give it as a string where that is allowed"
        )),
        // JSON Schema takes 1.0 for a whole number.
        Some(float) if float.fract() == 0.0 => Ok(format!("{}", float as i64)),
        Some(_) => Ok(number.to_string()),
    }
}

/// Whether JavaScript takes the value for true (ECMA-262, `ToBoolean`).
pub(super) fn is_truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(b) => *b,
        Value::Number(n) => n.as_f64().is_none_or(|n| n != 0.0),
        Value::String(s) => !s.is_empty(),
        Value::Array(_) | Value::Object(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn scalars_become_their_text() {
        for (value, expected) in [
            (json!("a\n$"), "a\n$"),
            (json!(""), ""),
            (json!(true), "true"),
            (json!(0), "0"),
            (json!(-0.0), "0"),
            (json!(7.0), "7"),
            (json!(-1.5), "-1.5"),
            (json!(u64::MAX), "18446744073709551615"),
            (json!(i64::MIN), "-9223372036854775808"),
            (json!(1e-7), "1e-7"),
        ] {
            assert_eq!(text(&value).as_deref(), Ok(expected), "{value}");
        }
    }

    #[test]
    fn what_is_no_scalar_or_was_not_kept_exactly_is_told() {
        for (value, found) in [
            (json!(null), "null"),
            (json!([1]), "an array"),
            (json!({"a": 1}), "an object"),
            (serde_json::from_str("123456789012345678901234567890").unwrap(), "not kept exactly"),
            (json!(1e300), "not kept exactly"),
        ] {
            let error = text(&value).unwrap_err();
            assert!(error.contains(found), "{value}: {error}");
        }
    }

    #[test]
    fn truth_is_that_of_javascript() {
        for truthy in
            [json!(true), json!(1), json!(-1.5), json!("false"), json!("0"), json!(" "), json!([]), json!({})]
        {
            assert!(is_truthy(&truthy), "{truthy}");
        }
        for falsy in [json!(false), json!(0), json!(-0.0), json!(""), json!(null)] {
            assert!(!is_truthy(&falsy), "{falsy}");
        }
    }
}
