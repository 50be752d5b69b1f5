//! Poison messages: stored requests whose headers the client library cannot decode.
//!
//! NATS stores any bytes as headers. When a server delivers such a message, async-nats drops the
//! connection, ends its connection task, or takes the message for an answer to the pull. So the
//! intake never receives the message.

/// The first line of headers.
const VERSION: &str = "NATS/1.0";

/// Validates stored headers by ADR-4 of NATS, exactly as strictly as the client library.
///
/// # Errors
/// A message for the publisher that names the position.
pub fn check_headers(headers: &[u8]) -> Result<(), String> {
    if headers.is_empty() {
        return Ok(());
    }
    let text = std::str::from_utf8(headers)
        .map_err(|e| format!("not UTF-8 at byte {} of the headers", e.valid_up_to()))?;
    let mut lines = text.lines().peekable();
    match lines.next().and_then(|line| line.strip_prefix(VERSION)).map(str::trim) {
        None => return Err(format!("line 1 of the headers does not begin with {VERSION}")),
        Some("") => {}
        Some(_) => return Err("line 1 of the headers has a status, which only a server may send".to_owned()),
    }
    let mut number = 1;
    while let Some(line) = lines.next() {
        number += 1;
        if line.is_empty() {
            continue;
        }
        let here = number;
        let at = |problem: &str| format!("line {here} of the headers {problem}");
        let (name, value) = line.split_once(':').ok_or_else(|| at("has no colon"))?;
        if !is_header_name(name) {
            return Err(at("has a name with white space or control characters"));
        }
        let mut value = value.trim_start().to_owned();
        // A line that starts with white space continues the value.
        while let Some(continued) = lines.next_if(|line| line.starts_with(char::is_whitespace)) {
            number += 1;
            value.push_str(continued);
        }
        if value.trim_end().contains('\r') {
            return Err(at("has a carriage return within its value"));
        }
    }
    Ok(())
}

/// Whether async-nats accepts the name of a header.
#[must_use]
pub fn is_header_name(name: &str) -> bool {
    name.chars().all(|c| c.is_ascii_graphic() && c != ':')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[u8]) -> Vec<u8> {
        [b"NATS/1.0\r\n", lines, b"\r\n"].concat()
    }

    #[test]
    fn headers_of_ordinary_clients_are_valid() {
        for lines in [
            &b""[..],
            b"Nats-Msg-Id: a\r\n",
            b"A: b\r\nB:\r\n",
            "A: \u{fc}\r\n".as_bytes(),
            b"A: b\r\n c\r\n",
            b": empty name\r\n",
        ] {
            assert_eq!(check_headers(&headers(lines)), Ok(()), "{lines:?}");
        }
        assert_eq!(check_headers(b""), Ok(()), "a message without headers");
    }

    #[test]
    fn headers_that_the_client_library_decodes_are_valid_even_if_they_are_unusual() {
        for headers in [
            &b"NATS/1.0"[..],
            b"NATS/1.0 \r\nA: b\r\n\r\n",
            b"NATS/1.0\nA: b\n\n",
            b"NATS/1.0\r\nA: \rb\r\r\n\r\n",
        ] {
            assert_eq!(check_headers(headers), Ok(()), "{headers:?}");
        }
    }

    #[test]
    fn headers_that_the_client_library_cannot_decode_are_reported_with_the_position() {
        for (lines, expected) in [
            (&b"A: \xff\r\n"[..], "byte 13"),
            (b"A b\r\n", "line 2"),
            (b"A: b\r\nA B: c\r\n", "line 3"),
            (b"A: b\rc\r\n", "carriage return"),
            (b"A: b\r\r\n c\r\n", "carriage return"),
            (b" leading: space\r\n", "line 2"),
        ] {
            let error = check_headers(&headers(lines)).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn first_line_with_a_status_or_another_version_is_reported() {
        for (headers, expected) in [
            (&b"NATS/1.0 503\r\n\r\n"[..], "has a status"),
            (b"NATS/1.0 404 No Messages\r\nA: b\r\n\r\n", "has a status"),
            (b"NATS/1.0 none\r\n\r\n", "has a status"),
            (b"NATS/1.1\r\n\r\n", "does not begin with NATS/1.0"),
            (b"A: b\r\n\r\n", "does not begin with NATS/1.0"),
            (b"\n", "does not begin with NATS/1.0"),
        ] {
            let error = check_headers(headers).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
