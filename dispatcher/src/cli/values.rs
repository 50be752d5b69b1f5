//! Parsers of settings. Their errors name the allowed values.

use std::{fmt::Display, net::SocketAddr, ops::RangeInclusive, str::FromStr};

use dispatcher_core::contract::names::is_label;

/// A whole number within a range.
pub(super) fn number<T>(
    range: RangeInclusive<T>,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static
where
    T: FromStr + PartialOrd + Display + Clone + Send + Sync + 'static,
{
    move |text| {
        let value = text.parse().ok().filter(|value| range.contains(value));
        value.ok_or_else(|| format!("expected a whole number from {} to {}", range.start(), range.end()))
    }
}

/// The name of a namespaced Kubernetes object or of a namespace.
pub(super) fn label(text: &str) -> Result<String, String> {
    if is_label(text) {
        return Ok(text.to_owned());
    }
    Err("expected 1 to 63 characters of a-z, 0-9 and '-', with a letter or digit at both ends".to_owned())
}

/// An address to listen on.
pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "expected an IP address and a port, such as 0.0.0.0:8080".to_owned())
}
