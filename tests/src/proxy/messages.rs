//! Counts the messages of a NATS client, by direction and kind: `sent $JS.ACK`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::protocol::Published;

/// The messages that passed a proxy since its start. Clones share the counts.
#[derive(Clone, Debug, Default)]
pub struct Messages(Arc<Mutex<BTreeMap<String, u64>>>);

impl Messages {
    /// The messages so far.
    #[must_use]
    pub fn total(&self) -> BTreeMap<String, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The messages since the counts `before`.
    #[must_use]
    pub fn since(&self, before: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
        let earlier = |kind: &String| before.get(kind).copied().unwrap_or_default();
        let added = self.total().into_iter().map(|(kind, count)| (kind.clone(), count - earlier(&kind)));
        added.filter(|(_, count)| *count > 0).collect()
    }

    /// Counts a message in this direction.
    pub(super) fn count(&self, direction: &str, message: &Published) {
        // `NATS/1.0 408`: an answer without a message of the stream.
        let is_status = message.body.starts_with(b"NATS/1.0 ");
        let kind = if is_status { "status".to_owned() } else { kind(&message.subject) };
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(format!("{direction} {kind}")).or_default() += 1;
    }
}

/// The part of a subject that names no message, client or Job: `$JS.ACK`, `jobs.simple.status`.
fn kind(subject: &str) -> String {
    let tokens: Vec<&str> = subject.split('.').collect();
    let is_fixed = |token: &&&str| token.chars().all(|c| c.is_ascii_uppercase() || "$_".contains(c));
    let length = match tokens.as_slice() {
        ["_INBOX", ..] => 1,
        ["$JS", "ACK", ..] => 2,
        ["$JS" | "$KV" | "$SRV", ..] => tokens.iter().take_while(is_fixed).count(),
        _ => 3,
    };
    tokens.get(..length).unwrap_or(&tokens).join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_of_one_kind_are_counted_together() {
        for (subject, expected) in [
            ("_INBOX.a.b", "_INBOX"),
            ("$JS.ACK.JOBS.simple.1.2.3.4.5", "$JS.ACK"),
            ("$JS.API.CONSUMER.MSG.NEXT.JOBS.simple", "$JS.API.CONSUMER.MSG.NEXT.JOBS"),
            ("dispatcher.event.simple.a", "dispatcher.event.simple"),
            ("jobs.simple.create", "jobs.simple.create"),
            ("a", "a"),
        ] {
            assert_eq!(kind(subject), expected);
        }
    }

    #[test]
    fn only_messages_since_the_earlier_counts_remain() {
        let messages = Messages::default();
        let message = |subject: &str, body: &'static [u8]| Published {
            subject: subject.to_owned(),
            reply: None,
            body: body.into(),
        };
        messages.count("sent", &message("a", b""));
        let before = messages.total();
        messages.count("received", &message("_INBOX.a", b"NATS/1.0 408 Request Timeout\r\n\r\n"));
        messages.count("received", &message("_INBOX.a", b"NATS/1.0\r\n\r\nhi"));
        let expected = [("received _INBOX".to_owned(), 1), ("received status".to_owned(), 1)];
        assert_eq!(messages.since(&before), expected.into());
    }
}
