//! Whether the client library can read a message's headers. NATS itself stores any bytes.
//!
//! A message that it cannot read ends the connection at each delivery, or the client with it, so the intake never sees
//! it: [`super::salvage`] takes it out of the stream.

use std::str::FromStr;

use async_nats::HeaderName;

/// The first line. With another one the server delivers the message without headers (2.15.1, measured).
const VERSION: &str = "NATS/1.0";

/// Checks the headers as they are stored: as ADR-4 of NATS says, and as strictly as the client library.
///
/// # Errors
/// What is wrong, for the publisher.
pub fn legible(headers: &[u8]) -> Result<(), String> {
    if headers.is_empty() {
        return Ok(());
    }
    let text = std::str::from_utf8(headers)
        .map_err(|e| format!("not UTF-8 at byte {} of the headers", e.valid_up_to()))?;
    let mut lines = text.lines().peekable();
    if lines.next() != Some(VERSION) {
        return Ok(());
    }
    let mut number = 1;
    while let Some(line) = lines.next() {
        number += 1;
        if line.is_empty() {
            continue;
        }
        let here = number;
        let at = |what: &str| format!("line {here} of the headers {what}");
        let (name, value) = line.split_once(':').ok_or_else(|| at("has no colon"))?;
        HeaderName::from_str(name).map_err(|_| at("has a name with white space or control characters"))?;
        let mut values = vec![value];
        // A value may go on on the next line, after white space.
        while let Some(more) = lines.next_if(|line| line.starts_with(char::is_whitespace)) {
            number += 1;
            values.push(more);
        }
        if values.iter().any(|value| value.contains('\r')) {
            return Err(at("has a carriage return within its value"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[u8]) -> Vec<u8> {
        [b"NATS/1.0\r\n", lines, b"\r\n"].concat()
    }

    #[test]
    fn headers_of_ordinary_clients_are_legible() {
        for lines in [
            &b""[..],
            b"Nats-Msg-Id: a\r\n",
            b"A: b\r\nB:\r\n",
            "A: \u{fc}\r\n".as_bytes(),
            b"A: b\r\n c\r\n",
        ] {
            assert_eq!(legible(&headers(lines)), Ok(()), "{lines:?}");
        }
        assert_eq!(legible(b""), Ok(()), "a message without headers");
        assert_eq!(legible(b"NATS/1.0 503\r\nno colon\r\n\r\n"), Ok(()), "they are not delivered");
    }

    #[test]
    fn what_the_client_library_cannot_read_is_told_by_its_place() {
        for (lines, told) in [
            (&b"A: \xff\r\n"[..], "byte 13"),
            (b"A b\r\n", "line 2"),
            (b"A: b\r\nA B: c\r\n", "line 3"),
            (b"A: b\rc\r\n", "carriage return"),
        ] {
            let error = legible(&headers(lines)).unwrap_err();
            assert!(error.contains(told), "{error}");
        }
    }
}
