//! Dead letters: what they keep of a request, and which request a stored one belongs to.
//!
//! A dead letter has the subject of its request's sequence. Its publish is fenced: it is stored only
//! if its publisher knew the last message of that subject. So nothing here depends on how many dead
//! letters exist. The sequence alone does not identify a request, because `JOBS` can be recreated.

use sha2::{Digest, Sha256};

use crate::contract::headers::{JOB_REQUEST_TIME, value_of};

/// The maximum length of the payload in a dead letter, in bytes. Only the beginning of a longer
/// payload is kept.
pub const MAX_PAYLOAD: usize = 8 * 1024;

/// A request's place in `JOBS` and the time it was stored there: they identify its dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredAt {
    /// The sequence in `JOBS`.
    pub sequence: u64,
    /// The time, in nanoseconds since 1970.
    pub nanos: i128,
}

/// What a dead letter keeps of its request's payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptPayload {
    /// How many bytes of the payload are kept, from its beginning.
    pub kept: usize,
    /// The length of the whole payload, in bytes.
    pub size: usize,
    /// SHA-256 of the whole payload, in hex.
    pub sha256: String,
}

impl KeptPayload {
    /// Keeps at most [`MAX_PAYLOAD`] bytes, and does not cut a UTF-8 character.
    #[must_use]
    pub fn of(payload: &[u8]) -> Self {
        let mut kept = payload.len().min(MAX_PAYLOAD);
        let is_continuation = |index: usize| payload.get(index).is_some_and(|byte| byte & 0xc0 == 0x80);
        // A character has at most three continuation bytes. More of them are no UTF-8.
        for _ in 0..3 {
            if is_continuation(kept) {
                kept = kept.saturating_sub(1);
            }
        }
        if is_continuation(kept) {
            kept = payload.len().min(MAX_PAYLOAD);
        }
        let sha256 = format!("{:x}", Sha256::digest(payload));
        Self { kept, size: payload.len(), sha256 }
    }
}

/// A message on the subject of a dead letter.
#[derive(Debug, Clone, Copy)]
pub struct Existing<'a> {
    /// Its sequence in `JOB_REJECTED`.
    pub sequence: u64,
    /// Its headers as they are stored.
    pub headers: &'a [u8],
}

impl Existing<'_> {
    /// Whether this is the dead letter of the request. The dead letter of an earlier stream `JOBS`
    /// has another time, and another program's message has none.
    #[must_use]
    pub fn belongs_to(&self, request: StoredAt) -> bool {
        value_of(self.headers, JOB_REQUEST_TIME).and_then(|text| text.parse().ok()) == Some(request.nanos)
    }
}

/// What to do after the fence refused the publish of a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterRefusal {
    /// An earlier delivery has stored the dead letter.
    Stored,
    /// Publish it again, and expect this sequence as the subject's last one.
    PublishAfter(u64),
}

/// Decides by the subject's last message, read after the refusal.
#[must_use]
pub fn after_refusal(last: Option<Existing<'_>>, request: StoredAt) -> AfterRefusal {
    match last {
        Some(last) if last.belongs_to(request) => AfterRefusal::Stored,
        last => AfterRefusal::PublishAfter(last.map_or(0, |last| last.sequence)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const REQUEST: StoredAt = StoredAt { sequence: 7, nanos: 1_700_000_000_000_000_001 };

    fn headers(time: &str) -> Vec<u8> {
        format!("NATS/1.0\r\nJob-Error: Refused\r\nJob-Request-Time: {time}\r\n\r\n").into_bytes()
    }

    #[test]
    fn only_a_message_with_the_time_of_the_request_is_its_dead_letter() {
        let at = |headers: &[u8]| after_refusal(Some(Existing { sequence: 3, headers }), REQUEST);
        assert_eq!(at(&headers("1700000000000000001")), AfterRefusal::Stored);
        let others = [
            headers("1700000000000000000"),
            headers(""),
            headers("x"),
            b"NATS/1.0\r\n\r\n".to_vec(),
            b"NATS/1.0\r\nno colon\r\nA: \xff\r\r\n\r\n".to_vec(),
            b"Job-Request-Time: 1700000000000000001\r\n".to_vec(),
            Vec::new(),
        ];
        for other in others {
            assert_eq!(at(&other), AfterRefusal::PublishAfter(3), "{:?}", String::from_utf8_lossy(&other));
        }
    }

    #[test]
    fn a_subject_whose_messages_expired_expects_zero() {
        assert_eq!(after_refusal(None, REQUEST), AfterRefusal::PublishAfter(0));
    }

    #[test]
    fn a_short_payload_is_kept_whole_and_a_long_one_is_cut_between_characters() {
        for (payload, kept) in [
            (Vec::new(), 0),
            (b"{}".to_vec(), 2),
            (vec![b'a'; MAX_PAYLOAD], MAX_PAYLOAD),
            (vec![b'a'; MAX_PAYLOAD + 1], MAX_PAYLOAD),
            ("€".repeat(MAX_PAYLOAD).into_bytes(), MAX_PAYLOAD - MAX_PAYLOAD % 3),
            (vec![0x80; 2 * MAX_PAYLOAD], MAX_PAYLOAD),
        ] {
            let found = KeptPayload::of(&payload);
            assert_eq!((found.kept, found.size), (kept, payload.len()));
        }
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(KeptPayload::of(b"").sha256, empty);
    }

    proptest! {
        #[test]
        fn the_kept_part_of_text_is_text(pad in 0..8_usize, end in "[aä€😀]{8}") {
            let text = "a".repeat(MAX_PAYLOAD - 4 - pad) + &end.repeat(2);
            let KeptPayload { kept, .. } = KeptPayload::of(text.as_bytes());
            prop_assert!(kept <= MAX_PAYLOAD && text.is_char_boundary(kept));
        }
    }
}
