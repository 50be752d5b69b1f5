//! Parses what a NATS client sends and receives: the boundaries of operations, and the messages.
//! Pure. See
//! <https://docs.nats.io/reference/reference-protocols/nats-protocol>.

use bytes::{Bytes, BytesMut};

/// More than any server accepts.
const LONGEST: usize = 64 << 20;

/// A pattern for publishes.
#[derive(Clone, Debug)]
pub struct Publish {
    pattern: String,
    text: Option<String>,
}

impl Publish {
    /// Publishes to matching subjects: `*` is any token, `>` is any rest.
    #[must_use]
    pub fn to(pattern: &str) -> Self {
        Self { pattern: pattern.to_owned(), text: None }
    }

    /// Only those that contain this text in their headers or payload.
    #[must_use]
    pub fn with(self, text: &str) -> Self {
        Self { text: Some(text.to_owned()), ..self }
    }

    pub(super) fn matches(&self, published: &Published) -> bool {
        let holds = |text: &String| published.body.windows(text.len()).any(|found| found == text.as_bytes());
        subject_matches(&self.pattern, &published.subject) && self.text.as_ref().is_none_or(holds)
    }
}

fn subject_matches(pattern: &str, subject: &str) -> bool {
    let (mut wanted, mut found) = (pattern.split('.'), subject.split('.'));
    loop {
        match (wanted.next(), found.next()) {
            (Some(">"), Some(_)) | (None, None) => return true,
            (Some(wanted), Some(found)) if wanted == "*" || wanted == found => {}
            _ => return false,
        }
    }
}

/// A message: of a `PUB` or `HPUB` that a client sends, or of a `MSG` or `HMSG` that it receives.
#[derive(Debug, PartialEq)]
pub(super) struct Published {
    pub(super) subject: String,
    /// The reply subject, if an answer is expected.
    pub(super) reply: Option<String>,
    /// Headers and payload.
    pub(super) body: Bytes,
}

/// One complete operation.
#[derive(Debug, PartialEq)]
pub(super) struct Operation {
    /// All of its bytes.
    pub(super) bytes: Bytes,
    pub(super) published: Option<Published>,
}

/// Takes the next complete operation from the buffer; `None` if it is incomplete.
///
/// # Errors
/// If the buffer is not valid NATS protocol.
pub(super) fn next(sent: &mut BytesMut) -> Result<Option<Operation>, String> {
    let Some(line_end) = sent.windows(2).position(|two| two == b"\r\n") else { return Ok(None) };
    let line = String::from_utf8_lossy(&sent[..line_end]).into_owned();
    let mut words = line.split_ascii_whitespace();
    let verb = words.next().unwrap_or_default().to_ascii_uppercase();
    let start = line_end + 2;
    // The number of words after the reply subject, and of those between it and the subject.
    let (lengths, ids) = match verb.as_str() {
        "PUB" => (1, 0),
        "HPUB" => (2, 0),
        "MSG" => (1, 1),
        "HMSG" => (2, 1),
        _ => return Ok(Some(Operation { bytes: sent.split_to(start).freeze(), published: None })),
    };
    let mut words: Vec<&str> = words.collect();
    words.drain(1.min(words.len())..(1 + ids).min(words.len()));
    let (subject, reply, length) = match (words.len().checked_sub(lengths), words.as_slice()) {
        (Some(1), [subject, .., length]) => (*subject, None, *length),
        (Some(2), [subject, reply, .., length]) => (*subject, Some((*reply).to_owned()), *length),
        _ => return Err(format!("no {verb}: {line:?}")),
    };
    let length: usize = length.parse().map_err(|_| format!("{line:?} does not end with a length"))?;
    let end = start.checked_add(length).filter(|end| *end < LONGEST).ok_or(format!("too long: {line:?}"))?;
    if sent.len() < end + 2 {
        return Ok(None);
    }
    let subject = subject.to_owned();
    let bytes = sent.split_to(end + 2).freeze();
    if !bytes.ends_with(b"\r\n") {
        return Err(format!("the payload of {line:?} has no terminator"));
    }
    let body = bytes.slice(start..end);
    Ok(Some(Operation { bytes, published: Some(Published { subject, reply, body }) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Example operations of clients.
    const SENT: [&[u8]; 8] = [
        b"CONNECT {\"verbose\":false}\r\n",
        b"PING\r\n",
        b"SUB _INBOX.a.* 1\r\n",
        b"PUB a.b 0\r\n\r\n",
        b"PUB a.b _INBOX.a.1 11\r\nPUB x 1\r\ny\n\r\n",
        b"HPUB a.b 12 14\r\nNATS/1.0\r\n\r\nhi\r\n",
        b"hpub  a.b _INBOX.a.2  21 24\r\nNATS/1.0\r\nA: long\r\n\r\nend\r\n",
        b"pub\ta.b\t2\r\nok\r\n",
    ];

    #[test]
    fn received_messages_are_parsed() {
        let read = |received: &[u8]| next(&mut received.into()).unwrap().unwrap().published.unwrap();
        let plain = read(b"MSG a.b 7 5\r\nhello\r\n");
        assert_eq!(
            (plain.subject.as_str(), plain.reply.as_deref(), &plain.body[..]),
            ("a.b", None, &b"hello"[..])
        );
        let with_reply = read(b"HMSG a.b 7 _INBOX.x 12 14\r\nNATS/1.0\r\n\r\nhi\r\n");
        assert_eq!((with_reply.subject.as_str(), with_reply.reply.as_deref()), ("a.b", Some("_INBOX.x")));
        assert_eq!(with_reply.body.len(), 14);
    }

    #[test]
    fn operations_are_split_regardless_of_read_boundaries() {
        let all = SENT.concat();
        for step in 1..all.len() {
            let (mut sent, mut found) = (BytesMut::new(), Vec::new());
            for part in all.chunks(step) {
                sent.extend_from_slice(part);
                while let Some(operation) = next(&mut sent).unwrap() {
                    found.push(operation.bytes);
                }
            }
            assert_eq!(found, SENT, "in reads of {step} bytes");
            assert!(sent.is_empty());
        }
    }

    #[test]
    fn publishes_are_parsed() {
        let read = |sent: &[u8]| next(&mut sent.into()).unwrap().unwrap().published;
        assert_eq!(read(SENT[0]), None);
        let published = read(SENT[4]).unwrap();
        assert_eq!((published.subject.as_str(), published.reply.as_deref()), ("a.b", Some("_INBOX.a.1")));
        assert_eq!(published.body, &b"PUB x 1\r\ny\n"[..]);
        let published = read(SENT[6]).unwrap();
        assert_eq!(published.reply.as_deref(), Some("_INBOX.a.2"));
        assert!(Publish::to("a.*").with("A: long").matches(&published));
        assert!(Publish::to("a.>").with("end").matches(&published));
        assert!(!Publish::to("a.>").with("other").matches(&published));
    }

    #[test]
    fn invalid_protocol_is_an_error() {
        for sent in
            [&b"PUB a\r\n"[..], b"PUB a x\r\n", b"PUB a 1\r\nlong\r\n", b"PUB a b c 1\r\n", b"HPUB a 1\r\n"]
        {
            assert!(next(&mut sent.into()).is_err(), "{}", String::from_utf8_lossy(sent));
        }
    }

    #[test]
    fn subjects() {
        for (pattern, subject) in [("a.b", "a.b"), ("*.b", "a.b"), (">", "a"), ("a.>", "a.b.c")] {
            assert!(subject_matches(pattern, subject), "{pattern} {subject}");
        }
        for (pattern, subject) in [("a", "a.b"), ("a.b", "a"), ("a.>", "a"), ("*", "a.b")] {
            assert!(!subject_matches(pattern, subject), "{pattern} {subject}");
        }
    }
}
