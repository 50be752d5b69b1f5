//! Decides whether a request to the console may enter, by its headers.
//!
//! A web page can make a browser send requests to any address that the browser reaches, and can
//! give its own DNS name that address (DNS rebinding). The browser names the page in headers that
//! the page cannot change.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::contract::names::Quoted;

/// The hosts that the console answers for.
#[derive(Debug, Clone, Default)]
pub struct Guard {
    hosts: Vec<String>,
}

/// The headers that name the host and the page of a request, each once.
#[derive(Debug, Clone, Copy, Default)]
pub struct Caller<'a> {
    /// `Host`.
    pub host: Option<&'a str>,
    /// `Origin`.
    pub origin: Option<&'a str>,
    /// `Sec-Fetch-Site`.
    pub fetch_site: Option<&'a str>,
}

impl Guard {
    /// A guard that also accepts these names of the console, without ports.
    #[must_use]
    pub fn new(hosts: &[String]) -> Self {
        Self { hosts: hosts.iter().map(|host| host.to_ascii_lowercase()).collect() }
    }

    /// Whether the request is sent to the console, and not by a page of another origin. An IP address
    /// and `localhost` need no configuration, since no other site can have that name.
    ///
    /// # Errors
    /// The found header and the expected one.
    pub fn check(&self, caller: Caller<'_>) -> Result<(), String> {
        let Some(host) = caller.host else { return Err("the header Host is missing".to_owned()) };
        if !self.is_own(host) {
            return Err(format!(
                "the header Host names {}: expected an IP address, `localhost`, or a host of \
                 DISPATCHER_CONSOLE_HOSTS",
                Quoted::new(host)
            ));
        }
        if let Some(site) = caller.fetch_site
            && !["same-origin", "none"].contains(&site)
        {
            return Err("the header Sec-Fetch-Site names a page of another origin".to_owned());
        }
        match caller.origin {
            Some(origin) if !is_origin_of(origin, host) => {
                Err(format!("the header Origin names another page: {}", Quoted::new(origin)))
            }
            _ => Ok(()),
        }
    }

    fn is_own(&self, host: &str) -> bool {
        let Some(name) = name_of(host) else { return false };
        let name = name.to_ascii_lowercase();
        name == "localhost" || is_address(&name) || self.hosts.contains(&name)
    }
}

/// The host without its port; `None` if that is no port.
fn name_of(host: &str) -> Option<&str> {
    let end = host.rfind(']').map_or(0, |end| end + 1);
    match host.get(end..)?.rfind(':') {
        None => Some(host),
        Some(colon) => {
            let (name, port) = host.split_at_checked(end + colon)?;
            port.get(1..)?.parse::<u16>().is_ok().then_some(name)
        }
    }
}

fn is_address(name: &str) -> bool {
    let v6 = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    name.parse::<Ipv4Addr>().is_ok() || v6.is_some_and(|name| name.parse::<Ipv6Addr>().is_ok())
}

/// Whether a page of the origin has this host. A proxy may end TLS, so both schemes are possible.
fn is_origin_of(origin: &str, host: &str) -> bool {
    let rest = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
    rest.is_some_and(|rest| rest.eq_ignore_ascii_case(host))
}

/// The token of `Bearer TOKEN`. The name of the scheme is case-insensitive (RFC 9110, 11.1).
#[must_use]
pub fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    (scheme.eq_ignore_ascii_case(b"bearer ") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(host: &str) -> Result<(), String> {
        let guard = Guard::new(&["Console.Example".to_owned()]);
        guard.check(Caller { host: Some(host), ..Caller::default() })
    }

    #[test]
    fn only_addresses_localhost_and_configured_names_are_hosts_of_the_console() {
        for own in [
            "127.0.0.1:8080",
            "10.1.2.3",
            "[::1]:8080",
            "[fd00::1]",
            "localhost:1",
            "LOCALHOST",
            "console.example",
            "console.example:443",
        ] {
            assert_eq!(check(own), Ok(()), "{own}");
        }
        for other in [
            "",
            ":",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "localhost:x",
            "localhost@evil.example",
            "[::1",
            "::1",
            "console.example.",
            "127.1",
            "localhost:99999",
        ] {
            assert!(check(other).unwrap_err().contains("DISPATCHER_CONSOLE_HOSTS"), "{other}");
        }
        assert!(Guard::default().check(Caller::default()).unwrap_err().contains("missing"));
    }

    #[test]
    fn pages_of_other_origins_are_refused() {
        let check = |origin, fetch_site| {
            Guard::default().check(Caller { host: Some("localhost:8080"), origin, fetch_site })
        };
        assert_eq!(check(None, None), Ok(()));
        assert_eq!(check(Some("http://localhost:8080"), Some("same-origin")), Ok(()));
        assert_eq!(check(Some("https://localhost:8080"), None), Ok(()));
        assert_eq!(check(None, Some("none")), Ok(()));
        for origin in ["http://localhost:3000", "null", "", "https://evil.example", "http://localhost:8080/"]
        {
            assert!(check(Some(origin), None).unwrap_err().contains("Origin"), "{origin}");
        }
        for site in ["same-site", "cross-site", "", "Same-Origin"] {
            assert!(check(None, Some(site)).unwrap_err().contains("Sec-Fetch-Site"), "{site}");
        }
    }

    #[test]
    fn bearer_token_is_what_follows_the_scheme() {
        assert_eq!(bearer(b"Bearer abc"), Some(&b"abc"[..]));
        assert_eq!(bearer(b"bearer a b"), Some(&b"a b"[..]));
        for other in [&b""[..], b"Bearer", b"Bearer ", b"Basic abc", b"abc"] {
            assert_eq!(bearer(other), None);
        }
    }

    proptest! {
        #[test]
        fn a_dns_name_is_no_host_unless_it_is_configured(name in "[a-z0-9.-]{0,20}\\.[a-z]{2,6}", port: u16) {
            let refused = check(&format!("{name}:{port}")).is_err();
            prop_assert!(refused || name == "console.example");
        }
    }
}
