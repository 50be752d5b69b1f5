//! Kubernetes quantities: `64Mi`, `0.5Gi`, `1e9`, `128974848`, `100m`.

/// Parses a quantity and rounds it up to an integer, as Kubernetes does.
///
/// Returns `None` for invalid and negative quantities, and for those above `u64::MAX`.
pub(super) fn parse(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '+').unwrap_or(text.len());
    let (number, suffix) = text.split_at_checked(end)?;
    let (digits, fraction) = parse_digits(number)?;
    let (factor, tens) = scale(suffix)?;
    let tens = tens - fraction;
    let power = 10_u128.checked_pow(tens.unsigned_abs())?;
    let whole = digits.checked_mul(factor)?;
    let value = if tens < 0 { whole.div_ceil(power) } else { whole.checked_mul(power)? };
    u64::try_from(value).ok()
}

/// The digits without the decimal point, and the number of decimal places.
fn parse_digits(number: &str) -> Option<(u128, i32)> {
    let number = number.strip_prefix('+').unwrap_or(number);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = format!("{whole}{fraction}").parse().ok()?;
    Some((digits, i32::try_from(fraction.len()).ok()?))
}

/// A suffix as a factor times a power of ten.
fn scale(suffix: &str) -> Option<(u128, i32)> {
    let decimal = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
    let binary = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    if let Some(power) = (-3..).zip(decimal).find(|(_, name)| *name == suffix).map(|(power, _)| power) {
        return Some((1, 3 * power));
    }
    if let Some(power) = (1..).zip(binary).find(|(_, name)| *name == suffix).map(|(power, _)| power) {
        return Some((1024_u128.pow(power), 0));
    }
    let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    (-40..=40).contains(&exponent).then_some((1, exponent))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn all_quantity_formats_are_parsed() {
        for (text, value) in [
            ("0", 0),
            ("128974848", 128_974_848),
            ("64Mi", 64 << 20),
            ("1.5Gi", 3 << 29),
            ("129e6", 129_000_000),
            ("129E6", 129_000_000),
            ("1E", 1_000_000_000_000_000_000),
            ("129M", 129_000_000),
            ("1k", 1000),
            ("100m", 1),
            ("2500m", 3),
            ("5e-1", 1),
            ("+.5Ki", 512),
            ("1.", 1),
            ("1n", 1),
        ] {
            assert_eq!(parse(text), Some(value), "{text}");
        }
    }

    #[test]
    fn invalid_quantities_are_rejected() {
        for text in
            ["", "Mi", "-1", "1 Mi", "64MB", "1e", "1.2.3", "99Ei99", "999999999999999999999E", "1e99", "é"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn integers_are_parsed_unchanged(number: u64) {
            prop_assert_eq!(parse(&number.to_string()), Some(number));
        }

        #[test]
        fn arbitrary_text_does_not_panic(text: String) {
            let _ = parse(&text);
        }
    }
}
