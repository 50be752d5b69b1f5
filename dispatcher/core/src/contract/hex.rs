//! Hashes and signatures as text.

use std::fmt::Write;

/// Two lower-case hexadecimal digits for each byte.
#[must_use]
pub(crate) fn to_hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_has_two_digits() {
        assert_eq!(to_hex(&[0, 9, 0xab, 0xff]), "0009abff");
        assert_eq!(to_hex(&[]), "");
    }
}
