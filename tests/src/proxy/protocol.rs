//! The client's side of the NATS protocol, as far as a proxy has to understand it: where a message ends, and what it
//! publishes. Pure. <https://docs.nats.io/reference/reference-protocols/nats-protocol>

use bytes::{Bytes, BytesMut};

/// More than any server takes.
const LONGEST: usize = 64 << 20;

/// Which publishes are meant.
#[derive(Clone, Debug)]
pub struct Publish {
    pattern: String,
    text: Option<String>,
}

impl Publish {
    /// Those to subjects that match: `*` is any token, `>` any rest.
    #[must_use]
    pub fn to(pattern: &str) -> Self {
        Self { pattern: pattern.to_owned(), text: None }
    }

    /// Of those, the ones with this text in their headers or payload.
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

/// What a `PUB` or `HPUB` publishes.
#[derive(Debug, PartialEq)]
pub(super) struct Published {
    pub(super) subject: String,
    /// Where an answer is awaited.
    pub(super) reply: Option<String>,
    /// Headers and payload.
    pub(super) body: Bytes,
}

/// One whole operation of a client.
#[derive(Debug, PartialEq)]
pub(super) struct Operation {
    /// All of its bytes.
    pub(super) bytes: Bytes,
    pub(super) published: Option<Published>,
}

/// Takes the next whole operation out of what a client has sent; `None` where more has to come.
///
/// # Errors
/// What is no NATS.
pub(super) fn next(sent: &mut BytesMut) -> Result<Option<Operation>, String> {
    let Some(line_end) = sent.windows(2).position(|two| two == b"\r\n") else { return Ok(None) };
    let line = String::from_utf8_lossy(&sent[..line_end]).into_owned();
    let mut words = line.split_ascii_whitespace();
    let verb = words.next().unwrap_or_default().to_ascii_uppercase();
    let start = line_end + 2;
    if !["PUB", "HPUB"].contains(&verb.as_str()) {
        return Ok(Some(Operation { bytes: sent.split_to(start).freeze(), published: None }));
    }
    let words: Vec<&str> = words.collect();
    let lengths = if verb == "PUB" { 1 } else { 2 };
    let (subject, reply, length) = match (words.len().checked_sub(lengths), words.as_slice()) {
        (Some(1), [subject, .., length]) => (*subject, None, *length),
        (Some(2), [subject, reply, .., length]) => (*subject, Some((*reply).to_owned()), *length),
        _ => return Err(format!("no {verb}: {line:?}")),
    };
    let length: usize = length.parse().map_err(|_| format!("no length at the end of {line:?}"))?;
    let end = start.checked_add(length).filter(|end| *end < LONGEST).ok_or(format!("too long: {line:?}"))?;
    if sent.len() < end + 2 {
        return Ok(None);
    }
    let subject = subject.to_owned();
    let bytes = sent.split_to(end + 2).freeze();
    if !bytes.ends_with(b"\r\n") {
        return Err(format!("no end after the payload of {line:?}"));
    }
    let body = bytes.slice(start..end);
    Ok(Some(Operation { bytes, published: Some(Published { subject, reply, body }) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What clients send, as operations.
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
    fn operations_are_told_apart_wherever_what_was_sent_is_cut() {
        let all = SENT.concat();
        for step in 1..all.len() {
            let (mut sent, mut found) = (BytesMut::new(), Vec::new());
            for part in all.chunks(step) {
                sent.extend_from_slice(part);
                while let Some(operation) = next(&mut sent).unwrap() {
                    found.push(operation.bytes);
                }
            }
            assert_eq!(found, SENT, "in parts of {step} bytes");
            assert!(sent.is_empty());
        }
    }

    #[test]
    fn publishes_are_read() {
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
    fn what_is_no_nats_is_told() {
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
