//! The W3C Trace Context of a request (W3C Recommendation "Trace Context", level 1, and the flag
//! `random` of level 2). It comes with the headers of the request and is passed on to the Job's
//! annotations, to its containers, and to every message about it.
//!
//! An invalid `traceparent` is ignored, as the Recommendation requires. It never rejects a request.

use std::{
    fmt::{self, Write as _},
    sync::Arc,
};

/// Header of requests, events and rejections, as named in the Recommendation.
pub const TRACEPARENT: &str = "traceparent";
/// The same, for the state of tracing vendors.
pub const TRACESTATE: &str = "tracestate";
/// Annotation of a Job with the `traceparent`.
pub const ANNOTATION_TRACEPARENT: &str = prefixed!("traceparent");
/// Annotation of a Job with the `tracestate`.
pub const ANNOTATION_TRACESTATE: &str = prefixed!("tracestate");
/// Environment variable of a Job's containers with the `traceparent` (OpenTelemetry, "Environment
/// Variables as Context Propagation Carriers").
pub const ENV_TRACEPARENT: &str = "TRACEPARENT";
/// Environment variable of a Job's containers with the `tracestate`.
pub const ENV_TRACESTATE: &str = "TRACESTATE";

/// The flag of a recorded trace.
const SAMPLED: u8 = 0x01;
/// The defined flags. The others are not passed on.
const FLAGS: u8 = SAMPLED | 0x02;

/// A trace, and the span in it that is the parent of later spans.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// The id of the trace; never zero.
    pub trace_id: [u8; 16],
    /// The id of the parent span; never zero.
    pub parent_id: [u8; 8],
    flags: u8,
    state: Option<TraceState>,
}

impl Trace {
    /// A trace with these ids; `None` if one of them is zero.
    #[must_use]
    pub fn new(trace_id: [u8; 16], parent_id: [u8; 8], sampled: bool) -> Option<Self> {
        let flags = if sampled { SAMPLED } else { 0 };
        (trace_id != [0; 16] && parent_id != [0; 8]).then_some(Self {
            trace_id,
            parent_id,
            flags,
            state: None,
        })
    }

    /// Parses `traceparent` and `tracestate`; `None` if the first is missing or invalid. An invalid
    /// `tracestate` is dropped.
    #[must_use]
    pub fn from_headers(traceparent: Option<&str>, tracestate: Option<&str>) -> Option<Self> {
        let trace = Self::parse(traceparent?)?;
        Some(Self { state: tracestate.and_then(TraceState::parse), ..trace })
    }

    /// Of later versions than 00, only the fields of version 00 are parsed.
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

    /// Whether the trace is recorded.
    #[must_use]
    pub fn sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The same trace with another parent span.
    #[must_use]
    pub fn with_parent(&self, span_id: [u8; 8]) -> Self {
        Self { parent_id: span_id, ..self.clone() }
    }

    /// The same trace with this vendor state.
    #[must_use]
    pub fn with_state(self, state: Option<TraceState>) -> Self {
        Self { state, ..self }
    }

    /// The vendor state.
    #[must_use]
    pub fn state(&self) -> Option<&TraceState> {
        self.state.as_ref()
    }

    /// The value of `traceparent`, version 00.
    #[must_use]
    pub fn traceparent(&self) -> String {
        self.to_string()
    }

    /// The value of `tracestate`, if there is one.
    #[must_use]
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

/// Parses exactly `N` bytes of lower-case hexadecimal digits.
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
    /// For the Job's annotations and for each message about it.
    pub trace: Option<Trace>,
    /// For the environment of the Job's containers.
    pub in_containers: Option<Trace>,
}

/// The longest `tracestate` that is passed on, in bytes: the minimum of the Recommendation.
const MAX_STATE: usize = 512;
/// The largest number of members of a `tracestate`.
const MAX_STATE_MEMBERS: usize = 32;

/// A valid `tracestate`: a list of `key=value` of tracing vendors, passed on unchanged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceState(Arc<str>);

impl TraceState {
    /// Parses the header `tracestate`; `None` if it is empty, invalid, or longer than 512 bytes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut members = text.split(',').map(|member| member.trim_matches([' ', '\t']));
        let valid = text.len() <= MAX_STATE
            && members.clone().count() <= MAX_STATE_MEMBERS
            && members.clone().any(|member| !member.is_empty())
            && members.all(|member| member.is_empty() || member.split_once('=').is_some_and(is_member));
        valid.then(|| Self(text.into()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether this is a member by the grammar of the Recommendation, section 3.3.1.3.
fn is_member((key, value): (&str, &str)) -> bool {
    let in_key = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-*/@".contains(c);
    let in_value = |c: char| matches!(c, ' '..='~') && c != ',' && c != '=';
    let valid_start = key.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    valid_start
        && key.len() <= 256
        && key.matches('@').count() <= 1
        && key.chars().all(in_key)
        && (1..=256).contains(&value.len())
        && value.chars().all(in_value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn valid_traceparent_is_passed_on_unchanged() {
        let trace = Trace::from_headers(Some(GOOD), Some("vendor=a,other@b=c")).unwrap();
        assert_eq!(trace.traceparent(), GOOD);
        assert_eq!(trace.tracestate(), Some("vendor=a,other@b=c"));
        assert!(trace.sampled());
        let not_sampled = GOOD.replace("-01", "-00");
        assert!(!Trace::from_headers(Some(&not_sampled), None).unwrap().sampled());
    }

    #[test]
    fn invalid_traceparent_is_ignored_with_its_tracestate() {
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
            assert_eq!(Trace::from_headers(Some(bad), Some("vendor=a")), None, "{bad}");
        }
        assert_eq!(Trace::from_headers(None, Some("vendor=a")), None);
    }

    #[test]
    fn later_version_is_parsed_as_version_00() {
        let later = format!("{}-another-field", GOOD.replace("00-", "cc-").replace("-01", "-ff"));
        assert_eq!(
            Trace::from_headers(Some(&later), None).unwrap().traceparent(),
            GOOD.replace("-01", "-03")
        );
    }

    #[test]
    fn child_span_belongs_to_the_same_trace() {
        let child = Trace::from_headers(Some(GOOD), Some("vendor=a")).unwrap().with_parent([1; 8]);
        assert_eq!(child.traceparent(), GOOD.replace("b7ad6b7169203331", "0101010101010101"));
        assert_eq!(child.tracestate(), Some("vendor=a"));
    }

    #[test]
    fn valid_tracestate_is_kept_unchanged() {
        for good in ["a=1", "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", "t@v=x y", "a=1 ,, b=2"] {
            assert_eq!(TraceState::parse(good).map(|state| state.as_str().to_owned()), Some(good.into()));
        }
    }

    #[test]
    fn invalid_tracestate_is_ignored() {
        let long = format!("a={}", "x".repeat(511));
        let many = (0..33).map(|n| format!("k{n}=v")).collect::<Vec<_>>().join(",");
        for bad in
            ["", " , ", "a", "A=1", "a=", "@a=1", "a@b@c=1", "a=b=c", "a=\r\nX: y", "a=ä", &long, &many]
        {
            assert_eq!(TraceState::parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_traceparent_is_ignored_or_round_trips(text in "(?s).{0,70}|[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?") {
            if let Some(trace) = Trace::from_headers(Some(&text), None) {
                prop_assert_eq!(trace.traceparent().len(), 55);
                prop_assert_eq!(Trace::from_headers(Some(&trace.traceparent()), None), Some(trace));
            }
        }
    }
}
