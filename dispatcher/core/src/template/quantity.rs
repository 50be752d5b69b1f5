//! Kubernetes quantities: `64Mi`, `100m`, `1.5e3`.
//!
//! The grammar is the one in `k8s.io/apimachinery/pkg/api/resource`, above `type Quantity`:
//!
//! ```text
//! <quantity>        ::= <signedNumber><suffix>
//! <number>          ::= <digits> | <digits>.<digits> | <digits>. | .<digits>
//! <signedNumber>    ::= <number> | +<number> | -<number>
//! <suffix>          ::= Ki | Mi | Gi | Ti | Pi | Ei
//!                     | n | u | m | "" | k | M | G | T | P | E
//!                     | e <signedNumber> | E <signedNumber>        (only whole numbers)
//! ```

use std::cmp::Ordering;

/// The JSON Schema `format` of a quantity.
pub(super) const FORMAT: &str = "kubernetes-quantity";

/// The longest quantity, in bytes: it becomes part of objects and messages.
const MAX_LENGTH: usize = 64;

/// Whether `text` is a quantity.
pub(super) fn is_quantity(text: &str) -> bool {
    let number = text.strip_prefix(['+', '-']).unwrap_or(text);
    let end = number.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(number.len());
    let Some((number, suffix)) = number.split_at_checked(end) else { return false };
    let digits = number.bytes().filter(u8::is_ascii_digit).count();
    let dots = number.len() - digits;
    text.len() <= MAX_LENGTH && digits > 0 && dots <= 1 && is_suffix(suffix)
}

fn is_suffix(suffix: &str) -> bool {
    let known = ["", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    known.contains(&suffix)
        || suffix.strip_prefix(['e', 'E']).is_some_and(|exponent| {
            let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            // Kubernetes parses the exponent as a 32-bit number.
            !digits.is_empty()
                && digits.bytes().all(|b| b.is_ascii_digit())
                && exponent.parse::<i32>().is_ok()
        })
}

/// The exact value of a quantity, for comparisons: 0.d₁d₂… × 10^magnitude.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Quantity {
    negative: bool,
    /// Without zeros at the start and the end; empty for zero.
    digits: Vec<u8>,
    magnitude: i64,
}

impl Quantity {
    /// The value of `text`; `None` if it is no quantity.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if !is_quantity(text) {
            return None;
        }
        let number = text.strip_prefix(['+', '-']).unwrap_or(text);
        let end = number.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(number.len());
        let (number, suffix) = number.split_at_checked(end)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let mut digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).map(|digit| digit - b'0').collect();
        let factor = binary_factor(suffix);
        let exponent = if factor == 1 { decimal_exponent(suffix)? } else { 0 };
        digits = multiply(&digits, factor);
        let mut magnitude =
            i64::try_from(digits.len()).ok()? - i64::try_from(fraction.len()).ok()? + exponent;
        let zeros = digits.iter().take_while(|digit| **digit == 0).count();
        digits.drain(..zeros);
        magnitude -= i64::try_from(zeros).ok()?;
        while digits.last() == Some(&0) {
            digits.pop();
        }
        if digits.is_empty() {
            return Some(Self { negative: false, digits, magnitude: 0 });
        }
        Some(Self { negative: text.starts_with('-'), digits, magnitude })
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        let size = |a: &Self, b: &Self| match (a.digits.is_empty(), b.digits.is_empty()) {
            (false, false) => a.magnitude.cmp(&b.magnitude).then_with(|| a.digits.cmp(&b.digits)),
            (a_is_zero, b_is_zero) => b_is_zero.cmp(&a_is_zero),
        };
        match (self.negative, other.negative) {
            (false, false) => size(self, other),
            (true, true) => size(other, self),
            (self_is_negative, other_is_negative) => other_is_negative.cmp(&self_is_negative),
        }
    }
}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

fn binary_factor(suffix: &str) -> u64 {
    let power = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"].iter().position(|known| *known == suffix);
    power.map_or(1, |power| 1 << (10 * (power + 1)))
}

fn decimal_exponent(suffix: &str) -> Option<i64> {
    let known = [
        ("n", -9),
        ("u", -6),
        ("m", -3),
        ("", 0),
        ("k", 3),
        ("M", 6),
        ("G", 9),
        ("T", 12),
        ("P", 15),
        ("E", 18),
    ];
    match known.iter().find(|(known, _)| *known == suffix) {
        Some((_, exponent)) => Some(*exponent),
        None => suffix.strip_prefix(['e', 'E'])?.parse::<i32>().ok().map(i64::from),
    }
}

/// The product in decimal digits.
fn multiply(digits: &[u8], factor: u64) -> Vec<u8> {
    let mut product = Vec::with_capacity(digits.len() + 20);
    let mut carry: u128 = 0;
    for digit in digits.iter().rev() {
        carry += u128::from(*digit) * u128::from(factor);
        product.push(last_digit(carry));
        carry /= 10;
    }
    while carry > 0 {
        product.push(last_digit(carry));
        carry /= 10;
    }
    product.reverse();
    product
}

fn last_digit(number: u128) -> u8 {
    u8::try_from(number % 10).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn quantity(text: &str) -> Quantity {
        Quantity::parse(text).unwrap()
    }

    #[test]
    fn quantities_compare_by_value() {
        for (less, more) in [
            ("-1", "0"),
            ("-2", "-1"),
            ("0", "1n"),
            ("999m", "1"),
            ("1000M", "1Gi"),
            ("1Gi", "1.1e9"),
            ("1023Ki", "1Mi"),
            ("9", "10"),
            ("0.09", "0.1"),
            ("1e-3", "2m"),
            ("7.9Ei", "8Ei"),
            ("1E", "1e19"),
            ("1e2147483646", "1e2147483647"),
            ("99999999999999999999999999999999999999Ei", "1e90"),
        ] {
            assert!(quantity(less) < quantity(more), "{less} {more}");
            assert!(quantity(more) > quantity(less), "{less} {more}");
        }
        for (one, same) in [
            ("1Ki", "1024"),
            ("1", "1000m"),
            ("0", "-0.0Gi"),
            ("1.50", "1500m"),
            ("1e3", "1k"),
            ("0e9", ".0"),
        ] {
            assert_eq!(quantity(one).cmp(&quantity(same)), Ordering::Equal, "{one} {same}");
        }
    }

    proptest! {
        #[test]
        fn integers_compare_as_integers(a in any::<i32>(), b in any::<i32>(), unit in 0usize..3) {
            let (suffix, factor) = [("Mi", 1_i64 << 20), ("k", 1000), ("", 1)][unit];
            let with_unit = quantity(&format!("{a}{suffix}"));
            let plain = i64::from(a) * factor;
            prop_assert_eq!(with_unit.cmp(&quantity(&b.to_string())), plain.cmp(&i64::from(b)));
        }
    }

    #[test]
    fn quantities_match_the_kubernetes_grammar() {
        for good in
            ["0", "64Mi", "100m", "1.5Gi", ".5", "5.", "+1", "-1", "1e3", "1E-3", "12E", "3e+2", "128974848"]
        {
            assert!(is_quantity(good), "{good}");
        }
        let long = "1".repeat(65);
        for bad in [
            "",
            " ",
            ".",
            "-",
            "Mi",
            "1 Mi",
            "64mi",
            "64MB",
            "1Kib",
            "1.2.3",
            "1e",
            "1e1.5",
            "1e99999999999",
            "0x10",
            "١",
            "1\n",
            "1Mi ",
            "--1",
            "NaN",
            &long,
        ] {
            assert!(!is_quantity(bad), "{bad:?}");
        }
    }
}
