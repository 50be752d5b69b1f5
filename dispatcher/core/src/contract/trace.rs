//! The W3C Trace Context of a request (W3C Recommendation "Trace Context", level 1; flag `random` of level 2): read from its
//! headers, kept on its Job, handed to its containers, and told with every message about it.
//!
//! What is no valid `traceparent` is as good as none, as the Recommendation asks: it never costs a request its Job.

mod state;

use std::{fmt, fmt::Write as _};

pub use state::TraceState;

/// Header of requests, events, rejections; its name is the Recommendation's.
pub const TRACEPARENT: &str = "traceparent";
/// The same, for what vendors add.
pub const TRACESTATE: &str = "tracestate";
/// Annotation of a Job with the `traceparent`.
pub const ANNOTATION_TRACEPARENT: &str = "natsjobs.dev/traceparent";
/// Annotation of a Job with the `tracestate`.
pub const ANNOTATION_TRACESTATE: &str = "natsjobs.dev/tracestate";
/// Environment variable of a Job's containers with the `traceparent` (OpenTelemetry, "Environment Variables as Context
/// Propagation Carriers").
pub const ENV_TRACEPARENT: &str = "TRACEPARENT";
/// Environment variable of a Job's containers with the `tracestate`.
pub const ENV_TRACESTATE: &str = "TRACESTATE";

/// The flag of a trace that is recorded.
const SAMPLED: u8 = 0x01;
/// The flags that have a meaning; the others are not passed on.
const FLAGS: u8 = SAMPLED | 0x02;

/// A trace, and the place in it that what follows belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// The trace; never zero.
    pub trace_id: [u8; 16],
    /// The span that what follows belongs to; never zero.
    pub parent_id: [u8; 8],
    flags: u8,
    state: Option<TraceState>,
}

impl Trace {
    /// The trace of these ids; `None` where one of them is zero.
    pub fn new(trace_id: [u8; 16], parent_id: [u8; 8], sampled: bool) -> Option<Self> {
        let flags = if sampled { SAMPLED } else { 0 };
        (trace_id != [0; 16] && parent_id != [0; 8]).then_some(Self {
            trace_id,
            parent_id,
            flags,
            state: None,
        })
    }

    /// The trace by the values of `traceparent` and `tracestate`; `None` where the first is missing or invalid. An invalid
    /// `tracestate` is left out.
    pub fn of(traceparent: Option<&str>, tracestate: Option<&str>) -> Option<Self> {
        let trace = Self::parse(traceparent?)?;
        Some(Self { state: tracestate.and_then(TraceState::parse), ..trace })
    }

    /// Version 00 is read to its last character, a later one as far as version 00 goes.
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(5, '-');
        let mut part = || parts.next();
        let (version, trace_id, parent_id, flags) = (part()?, part()?, part()?, part()?);
        let rest = part();
        let [version] = hex(version)?;
        let [flags] = hex(flags)?;
        if version == 0xff || (version == 0 && rest.is_some()) {
            return None;
        }
        Some(Self { flags: flags & FLAGS, ..Self::new(hex(trace_id)?, hex(parent_id)?, false)? })
    }

    /// Whether it is recorded.
    pub fn sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The same trace where what follows belongs to another span of it.
    #[must_use]
    pub fn within(&self, span_id: [u8; 8]) -> Self {
        Self { parent_id: span_id, ..self.clone() }
    }

    /// The same trace with what vendors add.
    #[must_use]
    pub fn with_state(self, state: Option<TraceState>) -> Self {
        Self { state, ..self }
    }

    /// What vendors add.
    pub fn state(&self) -> Option<&TraceState> {
        self.state.as_ref()
    }

    /// The value of `traceparent`, of version 00.
    pub fn traceparent(&self) -> String {
        self.to_string()
    }

    /// The value of `tracestate`, where there is one.
    pub fn tracestate(&self) -> Option<&str> {
        self.state.as_ref().map(TraceState::as_str)
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("00-")?;
        self.trace_id.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_char('-')?;
        self.parent_id.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        write!(f, "-{:02x}", self.flags)
    }
}

/// Exactly `N` bytes in lower-case hexadecimal digits.
fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

/// The trace context that a request passes on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TraceContext {
    /// Written to the Job and to each message about it.
    pub trace: Option<Trace>,
    /// Written to the environment of the Job's containers.
    pub in_containers: Option<Trace>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_valid_traceparent_is_passed_on_as_it_came() {
        let trace = Trace::of(Some(GOOD), Some("vendor=a,other@b=c")).unwrap();
        assert_eq!(trace.traceparent(), GOOD);
        assert_eq!(trace.tracestate(), Some("vendor=a,other@b=c"));
        assert!(trace.sampled());
        let not_sampled = GOOD.replace("-01", "-00");
        assert!(!Trace::of(Some(&not_sampled), None).unwrap().sampled());
    }

    #[test]
    fn an_invalid_traceparent_is_none_and_takes_its_tracestate_along() {
        for bad in [
            "",
            "00",
            &GOOD.to_uppercase(),
            &format!("{GOOD} "),
            &format!("{GOOD}-00"),
            &GOOD.replace("00-", "ff-"),
            &GOOD.replace("00-", "0-"),
            &GOOD.replace("-01", "-1"),
            &GOOD.replace("-01", "-0ä"),
            &GOOD.replace("0af7651916cd43dd8448eb211c80319c", "00000000000000000000000000000000"),
            &GOOD.replace("b7ad6b7169203331", "0000000000000000"),
            &GOOD.replace("b7ad6b7169203331", "b7ad6b716920333"),
        ] {
            assert_eq!(Trace::of(Some(bad), Some("vendor=a")), None, "{bad}");
        }
        assert_eq!(Trace::of(None, Some("vendor=a")), None);
    }

    #[test]
    fn a_later_version_is_read_as_far_as_this_one_goes() {
        let later = format!("{}-more-to-come", GOOD.replace("00-", "cc-").replace("-01", "-ff"));
        assert_eq!(Trace::of(Some(&later), None).unwrap().traceparent(), GOOD.replace("-01", "-03"));
    }

    #[test]
    fn what_follows_belongs_to_another_span_of_the_same_trace() {
        let within = Trace::of(Some(GOOD), Some("vendor=a")).unwrap().within([1; 8]);
        assert_eq!(within.traceparent(), GOOD.replace("b7ad6b7169203331", "0101010101010101"));
        assert_eq!(within.tracestate(), Some("vendor=a"));
    }

    proptest! {
        #[test]
        fn whatever_comes_is_none_or_can_be_written_and_read_again(text in "(?s).{0,70}|[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?") {
            if let Some(trace) = Trace::of(Some(&text), None) {
                prop_assert_eq!(trace.traceparent().len(), 55);
                prop_assert_eq!(Trace::of(Some(&trace.traceparent()), None), Some(trace));
            }
        }
    }
}
