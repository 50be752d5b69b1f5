//! Ids of spans, each by what it is of: another replica and another try come to the same. Pure.

use sha2::{Digest, Sha256};

use dispatcher_core::contract::trace::Trace;

/// Which delivery of which message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered<'a> {
    /// The stream's name and creation time.
    pub stream: &'a str,
    /// The message's sequence there.
    pub sequence: u64,
    /// How often it was delivered, this time among them.
    pub times: i64,
}

impl Delivered<'_> {
    /// The trace of a request that came without one: the same at each delivery.
    pub(super) fn trace_id(&self) -> [u8; 16] {
        first(&["trace", self.stream, &self.sequence.to_string()])
    }

    /// The span of this delivery.
    pub(super) fn span_id(&self, trace_id: &[u8; 16]) -> [u8; 8] {
        let trace_id = u128::from_be_bytes(*trace_id).to_string();
        first(&["delivery", &trace_id, self.stream, &self.sequence.to_string(), &self.times.to_string()])
    }
}

/// The span of a Job's run, of which the trace on the Job is the parent.
pub(super) fn of_run(on_job: &Trace) -> [u8; 8] {
    first(&["run", &on_job.traceparent()])
}

/// The first bytes of the SHA-256 of some words.
fn first<const N: usize>(words: &[&str]) -> [u8; N] {
    let hash = Sha256::digest(words.join("\n"));
    let mut bytes = [0; N];
    bytes.iter_mut().zip(hash).for_each(|(byte, of_hash)| *byte = of_hash);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivered(sequence: u64, times: i64) -> Delivered<'static> {
        Delivered { stream: "JOBS 2026", sequence, times }
    }

    #[test]
    fn all_deliveries_of_a_request_are_spans_of_one_trace() {
        let (first, again) = (delivered(7, 1), delivered(7, 2));
        assert_eq!(first.trace_id(), again.trace_id());
        assert_ne!(first.span_id(&first.trace_id()), again.span_id(&again.trace_id()));
        assert_eq!(
            first.span_id(&[1; 16]),
            delivered(7, 1).span_id(&[1; 16]),
            "another process comes to the same"
        );
        assert_ne!(first.trace_id(), delivered(8, 1).trace_id());
    }

    #[test]
    fn a_run_is_a_span_of_its_own() {
        let trace = Trace::new([1; 16], [2; 8], true).unwrap();
        assert_eq!(of_run(&trace), of_run(&trace));
        assert_ne!(of_run(&trace), trace.parent_id);
        assert_ne!(of_run(&trace), of_run(&trace.with_parent([3; 8])));
    }
}
