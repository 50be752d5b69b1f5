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

#[cfg(test)]
mod tests {
    use crate::template::quantity::is_quantity;

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
