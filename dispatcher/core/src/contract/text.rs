//! Makes text of clients, containers and other programs safe to publish: printable and bounded.
//!
//! Such a text can contain anything. The dispatcher publishes it only through this module.

use std::fmt::Write;

/// The longest message, in bytes of JSON.
pub const MAX_MESSAGE: usize = 4096;

/// The longest reason, in bytes of JSON. Kubernetes' own reasons have at most 128 characters.
const MAX_REASON: usize = 256;

/// A message of Kubernetes or of a container; `None` if it is empty.
#[must_use]
pub fn message(text: Option<&str>) -> Option<String> {
    let text = text.map(str::trim_end).filter(|text| !text.is_empty())?;
    Some(head(&printable(text), MAX_MESSAGE))
}

/// A reason of Kubernetes; `None` if it is empty.
#[must_use]
pub fn reason(text: Option<&str>) -> Option<String> {
    let text = text.map(str::trim).filter(|text| !text.is_empty())?;
    Some(head(&printable(text), MAX_REASON))
}

/// The end of a log: at most `lines` lines and `max` bytes of JSON; `None` if it is empty.
#[must_use]
pub fn tail(log: &[u8], lines: usize, max: usize) -> Option<String> {
    let text = printable(&String::from_utf8_lossy(log));
    let text = text.trim_end_matches('\n');
    let from = text.rmatch_indices('\n').nth(lines.saturating_sub(1)).map_or(0, |(at, _)| at + 1);
    let mut size = 0;
    let mut start = text.len();
    for (at, c) in text.char_indices().rev().take_while(|(at, _)| *at >= from) {
        size += json_len(c);
        if size > max {
            break;
        }
        start = at;
    }
    text.get(start..).filter(|tail| !tail.is_empty()).map(str::to_owned)
}

/// Escapes what could make a reader see another text: control characters except line feed and tab
/// (`\x1b`), and the characters that change the direction or the lines of a text (`\u202e`).
#[must_use]
pub fn printable(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.replace("\r\n", "\n").chars() {
        // Writing to a String cannot fail.
        if c.is_control() && c != '\n' && c != '\t' {
            let _ = write!(safe, "\\x{:02x}", u32::from(c));
        } else if is_reordering(c) {
            let _ = write!(safe, "\\u{:04x}", u32::from(c));
        } else {
            safe.push(c);
        }
    }
    safe
}

/// Whether the character has the Unicode property `Bidi_Control`, or is a line or paragraph separator.
fn is_reordering(c: char) -> bool {
    matches!(
        c,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    )
}

fn head(text: &str, max: usize) -> String {
    let mut size = 0;
    let fits = |c: &char| {
        size += json_len(*c);
        size <= max
    };
    text.chars().take_while(fits).collect()
}

/// The bytes of a character in a JSON string (RFC 8259, section 7).
pub(crate) fn json_len(c: char) -> usize {
    match c {
        '"' | '\\' | '\n' | '\t' => 2,
        c if c.is_control() => 6,
        c => c.len_utf8(),
    }
}

/// The bytes of a text in a JSON string.
pub(crate) fn text_size(text: &str) -> usize {
    text.chars().map(json_len).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn tail_is_the_last_lines() {
        assert_eq!(tail(b"one\ntwo\nthree\n", 2, 100).as_deref(), Some("two\nthree"));
        assert_eq!(tail(b"one\r\ntwo", 20, 100).as_deref(), Some("one\ntwo"));
        assert_eq!(tail(b"one\ntwo\nthree\n", 20, 7).as_deref(), Some("\nthree"));
        assert_eq!(tail(b"", 20, 100), None);
        assert_eq!(tail(b"\n\n", 20, 100), None);
    }

    #[test]
    fn binary_output_is_escaped() {
        assert_eq!(tail(b"\x1b[31mred\xff\0", 20, 100).as_deref(), Some("\\x1b[31mred\u{fffd}\\x00"));
        assert_eq!(message(Some("a\u{9b}b\n")).as_deref(), Some("a\\x9bb"));
        assert_eq!(
            message(Some("a\u{202e}b\u{2069}c\u{2028}d")).as_deref(),
            Some("a\\u202eb\\u2069c\\u2028d")
        );
        // Hebrew, and an emoji of several code points.
        let ordinary = "\u{5d0}\u{5d1} \u{1f469}\u{200d}\u{1f467}";
        assert_eq!(message(Some(ordinary)).as_deref(), Some(ordinary));
        assert_eq!(message(Some(" \n")), None);
        assert_eq!(message(None), None);
    }

    proptest! {
        #[test]
        fn tail_of_any_log_is_printable_and_bounded(log in prop::collection::vec(any::<u8>(), 0..3000), lines in 1usize..30, max in 1usize..500) {
            if let Some(tail) = tail(&log, lines, max) {
                prop_assert!(serde_json::to_string(&tail).unwrap().len() - 2 <= max);
                prop_assert!(tail.lines().count() <= lines);
                prop_assert!(tail.chars().all(|c| c == '\n' || c == '\t' || !c.is_control() && !is_reordering(c)));
            }
        }

        #[test]
        fn message_is_bounded(text in "(?s).{0,9000}") {
            if let Some(message) = message(Some(&text)) {
                prop_assert!(serde_json::to_string(&message).unwrap().len() - 2 <= MAX_MESSAGE);
            }
        }
    }
}
