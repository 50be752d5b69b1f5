//! Kubernetes quantities as whole numbers of bytes: `64Mi`, `1.5G`, `1e9`, `128974848`.

/// The bytes of a quantity, rounded up as Kubernetes does; `None` if it is invalid or does not fit.
pub(crate) fn bytes(text: &str) -> Option<u64> {
    let text = text.strip_prefix('+').unwrap_or(text);
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at_checked(end)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
    let (factor, tens) = scale(suffix)?;
    let tens = tens - i32::try_from(fraction.len()).ok()?;
    let power = 10_u128.checked_pow(tens.unsigned_abs())?;
    let value = digits.checked_mul(factor)?;
    u64::try_from(if tens < 0 { value.div_ceil(power) } else { value.checked_mul(power)? }).ok()
}

/// A suffix as a factor and a power of ten.
fn scale(suffix: &str) -> Option<(u128, i32)> {
    Some(match suffix {
        "" => (1, 0),
        "n" => (1, -9),
        "u" => (1, -6),
        "m" => (1, -3),
        "k" => (1, 3),
        "M" => (1, 6),
        "G" => (1, 9),
        "T" => (1, 12),
        "P" => (1, 15),
        "E" => (1, 18),
        "Ki" => (1 << 10, 0),
        "Mi" => (1 << 20, 0),
        "Gi" => (1 << 30, 0),
        "Ti" => (1 << 40, 0),
        "Pi" => (1 << 50, 0),
        "Ei" => (1 << 60, 0),
        other => (1, other.strip_prefix(['e', 'E'])?.parse().ok().filter(|n| (-40..=40).contains(n))?),
    })
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn quantities_match_those_of_kubernetes() {
        for (text, expected) in [
            ("0", 0),
            ("64Mi", 64 << 20),
            ("1.5Gi", 3 << 29),
            ("1.5G", 1_500_000_000),
            ("1e3", 1000),
            ("1E-1", 1),
            ("100m", 1),
            (".5k", 500),
            ("5.", 5),
            ("+1", 1),
        ] {
            assert_eq!(bytes(text), Some(expected), "{text}");
        }
        for text in ["", ".", "-1", "64MB", "1 Mi", "Mi", "99E", "1e99", "x", "1.2.3"] {
            assert_eq!(bytes(text), None, "{text}");
        }
    }
}
