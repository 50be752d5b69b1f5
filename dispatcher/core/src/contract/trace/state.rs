//! `tracestate`: a list of `key=value` of vendors, passed on as it came.

use std::sync::Arc;

/// The longest one that is passed on, in bytes: what the Recommendation asks every vendor to pass on at least.
const MAX: usize = 512;
/// The most members that it may have.
const MEMBERS: usize = 32;

/// A valid `tracestate`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceState(Arc<str>);

impl TraceState {
    /// The value of the header `tracestate`; `None` where it is empty, invalid, or longer than 512 bytes.
    pub fn parse(text: &str) -> Option<Self> {
        let mut members = text.split(',').map(|member| member.trim_matches([' ', '\t']));
        let valid = text.len() <= MAX
            && members.clone().count() <= MEMBERS
            && members.clone().any(|member| !member.is_empty())
            && members.all(|member| member.is_empty() || member.split_once('=').is_some_and(is_member));
        valid.then(|| Self(text.into()))
    }

    /// The value.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// By the grammar of the Recommendation, section 3.3.1.3.
fn is_member((key, value): (&str, &str)) -> bool {
    let in_key = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-*/@".contains(c);
    let in_value = |c: char| matches!(c, ' '..='~') && c != ',' && c != '=';
    let begins = key.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    begins
        && key.len() <= 256
        && key.matches('@').count() <= 1
        && key.chars().all(in_key)
        && (1..=256).contains(&value.len())
        && value.chars().all(in_value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_valid_list_is_kept_as_it_is() {
        for good in ["a=1", "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", "t@v=x y", "a=1 ,, b=2"] {
            assert_eq!(TraceState::parse(good).map(|state| state.as_str().to_owned()), Some(good.into()));
        }
    }

    #[test]
    fn an_invalid_one_is_none() {
        let long = format!("a={}", "x".repeat(511));
        let many = (0..33).map(|n| format!("k{n}=v")).collect::<Vec<_>>().join(",");
        for bad in
            ["", " , ", "a", "A=1", "a=", "@a=1", "a@b@c=1", "a=b=c", "a=\r\nX: y", "a=ä", &long, &many]
        {
            assert_eq!(TraceState::parse(bad), None, "{bad}");
        }
    }
}
