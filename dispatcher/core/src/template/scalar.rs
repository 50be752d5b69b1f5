//! JSON scalars as text, as they are substituted in a manifest.

use serde_json::{Number, Value};

use crate::template::problem::type_of;

/// The limit up to which an IEEE 754 double holds every whole number (RFC 8259, section 6).
const MAX_EXACT: f64 = 9_007_199_254_740_992.0;

/// The text of a scalar: a string unchanged, `true` or `false`, a whole number without a fraction.
///
/// # Errors
/// If the value is an array, an object or `null`, or a number that lost precision when decoded.
pub(super) fn text(value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Bool(value) => Ok(value.to_string()),
        Value::Number(number) => number_text(number),
        other => Err(format!("expected a string, a number or a boolean, found {}", type_of(other))),
    }
}

#[expect(clippy::match_same_arms, reason = "integers and fractions are different cases")]
#[expect(clippy::cast_possible_truncation, reason = "the number is below 2^53")]
fn number_text(number: &Number) -> Result<String, String> {
    match number.as_f64().filter(|_| number.is_f64()) {
        None => Ok(number.to_string()),
        Some(float) if float.abs() >= MAX_EXACT => Err(format!(
            "expected a number below {MAX_EXACT}, found {number}, which loses precision; use a string if the template allows it"
        )),
        // To JSON Schema, 1.0 is a whole number.
        Some(float) if float.fract() == 0.0 => Ok(format!("{}", float as i64)),
        Some(_) => Ok(number.to_string()),
    }
}

/// Whether the value is truthy in JavaScript (ECMA-262, `ToBoolean`).
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
    fn scalars_convert_to_text() {
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
    fn other_values_and_inexact_numbers_are_errors() {
        for (value, found) in [
            (json!(null), "null"),
            (json!([1]), "an array"),
            (json!({"a": 1}), "an object"),
            (serde_json::from_str("123456789012345678901234567890").unwrap(), "loses precision"),
            (json!(1e300), "loses precision"),
        ] {
            let error = text(&value).unwrap_err();
            assert!(error.contains(found), "{value}: {error}");
        }
    }

    #[test]
    fn truthiness_matches_javascript() {
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
