//! Decides whether a request over a socket may enter. Pure.
//!
//! A web page that the developer visits can send requests to loopback ports, and so can programs
//! of other users. Browsers name the page in headers that a page cannot change; other programs
//! lack the token. Every rule applies to every path, before the body is read.

use axum::http::{
    HeaderMap, HeaderValue, Uri,
    header::{AUTHORIZATION, HOST, HeaderName, ORIGIN},
    request::Parts,
    uri::Authority,
};

use crate::{
    credentials::Token,
    error::{ApiError, ApiResult},
};

/// The names of this machine. Any other name in `Host` is a DNS name that points to it.
const HOSTS: [&str; 3] = ["127.0.0.1", "localhost", "[::1]"];
/// The site of the page that sends a request, as the browser sees it.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The rules of one server.
#[derive(Clone)]
pub(crate) struct Guard {
    /// The port that the server listens on.
    pub(super) port: u16,
    pub(super) is_https: bool,
    /// The token that every request needs; `None` if none does.
    pub(super) token: Option<Token>,
}

impl Guard {
    /// Checks the headers of a request.
    ///
    /// # Errors
    /// 403 for another host, origin or site, and 401 without the token.
    pub(super) fn check(&self, parts: &Parts) -> ApiResult<()> {
        self.check_host(&parts.uri, &parts.headers)?;
        self.check_origin(&parts.headers)?;
        check_site(&parts.headers)?;
        match &self.token {
            Some(token) => check_token(&parts.headers, token),
            None => Ok(()),
        }
    }

    fn check_host(&self, uri: &Uri, headers: &HeaderMap) -> ApiResult<()> {
        let from_headers = headers.get_all(HOST).iter().map(|host| authority(host.as_bytes()));
        let from_uri = uri.authority().map(|authority| Some(authority.clone()));
        let mut found = 0;
        for host in from_headers.chain(from_uri) {
            found += 1;
            if !host.is_some_and(|host| self.is_own(&host)) {
                return Err(self.host_refused("names another host"));
            }
        }
        if found == 0 { Err(self.host_refused("is missing")) } else { Ok(()) }
    }

    fn host_refused(&self, why: &str) -> ApiError {
        ApiError::refused(format!(
            "the header Host {why}: expected one of {}, each with the port {}",
            HOSTS.join(", "),
            self.port
        ))
    }

    fn check_origin(&self, headers: &HeaderMap) -> ApiResult<()> {
        let scheme = if self.is_https { "https://" } else { "http://" };
        let is_own = |origin: &HeaderValue| {
            let host = origin.as_bytes().strip_prefix(scheme.as_bytes());
            host.and_then(authority).is_some_and(|host| self.is_own(&host))
        };
        match headers.get_all(ORIGIN).iter().all(is_own) {
            true => Ok(()),
            false => Err(ApiError::refused("the header Origin names a web page: pages may send no request")),
        }
    }

    /// Whether this is a name of this server. User information is part of no `Host` or `Origin`.
    fn is_own(&self, host: &Authority) -> bool {
        let port = host.port_u16().unwrap_or(if self.is_https { 443 } else { 80 });
        let is_known = HOSTS.iter().any(|known| known.eq_ignore_ascii_case(host.host()));
        is_known && port == self.port && !host.as_str().contains('@')
    }
}

fn authority(text: &[u8]) -> Option<Authority> {
    Authority::try_from(text).ok()
}

/// A site ignores ports, so `same-site` is a page of another program on this machine.
fn check_site(headers: &HeaderMap) -> ApiResult<()> {
    let is_own = |site: &HeaderValue| site == "same-origin" || site == "none";
    match headers.get_all(FETCH_SITE).iter().all(is_own) {
        true => Ok(()),
        false => Err(ApiError::refused(
            "the header Sec-Fetch-Site names a page of another origin: pages may send no request",
        )),
    }
}

fn check_token(headers: &HeaderMap, token: &Token) -> ApiResult<()> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (only, more) = (values.next(), values.next());
    let given = only.filter(|_| more.is_none()).and_then(|value| bearer(value.as_bytes()));
    match given.is_some_and(|given| token.equals(given)) {
        true => Ok(()),
        false => Err(ApiError::from_code(401)),
    }
}

/// The token of `Bearer TOKEN`. The name of the scheme is case-insensitive.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then_some(token)
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn guard(port: u16, is_https: bool) -> Guard {
        Guard { port, is_https, token: None }
    }

    fn check(guard: &Guard, uri: &str, headers: &[(&str, &str)]) -> u16 {
        let mut request = Request::get(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        guard.check(&request.body(()).unwrap().into_parts().0).map_or_else(|error| error.code, |()| 200)
    }

    #[test]
    fn only_names_of_this_machine_with_the_port_are_hosts() {
        for (host, code) in [
            ("127.0.0.1:8001", 200),
            ("localhost:8001", 200),
            ("LocalHost:8001", 200),
            ("[::1]:8001", 200),
            ("localhost", 403),
            ("localhost:8002", 403),
            ("localhost.:8001", 403),
            ("evil.example:8001", 403),
            ("127.0.0.1.evil.example:8001", 403),
            ("localhost:8001@evil.example", 403),
            ("evil@localhost:8001", 403),
            ("127.0.0.2:8001", 403),
            ("0.0.0.0:8001", 403),
            ("2130706433:8001", 403),
            ("::1:8001", 403),
            ("", 403),
            ("localhost:", 403),
            ("localhost:8001 ", 403),
        ] {
            assert_eq!(check(&guard(8001, true), "/api", &[("host", host)]), code, "{host:?}");
        }
    }

    #[test]
    fn default_port_may_be_absent_from_the_host() {
        assert_eq!(check(&guard(443, true), "/", &[("host", "localhost")]), 200);
        assert_eq!(check(&guard(80, false), "/", &[("host", "localhost")]), 200);
        assert_eq!(check(&guard(80, true), "/", &[("host", "localhost")]), 403);
    }

    #[test]
    fn every_host_of_a_request_is_checked() {
        let (own, other) = (("host", "localhost:8001"), ("host", "evil.example:8001"));
        assert_eq!(check(&guard(8001, false), "/", &[]), 403);
        assert_eq!(check(&guard(8001, false), "/", &[own, other]), 403);
        assert_eq!(check(&guard(8001, false), "http://evil.example:8001/api", &[own]), 403);
        assert_eq!(check(&guard(8001, false), "http://localhost:8001/api", &[other]), 403);
        assert_eq!(check(&guard(8001, false), "http://localhost:8001/api", &[own]), 200);
    }

    #[test]
    fn requests_of_pages_of_other_origins_are_refused() {
        for (headers, code) in [
            (vec![], 200),
            (vec![("origin", "https://localhost:8001")], 200),
            (vec![("origin", "http://localhost:8001")], 403),
            (vec![("origin", "https://localhost:3000")], 403),
            (vec![("origin", "https://evil.example")], 403),
            (vec![("origin", "https://evil.example"), ("origin", "https://localhost:8001")], 403),
            (vec![("origin", "null")], 403),
            (vec![("origin", "")], 403),
            (vec![("origin", "chrome-extension://abc")], 403),
            (vec![("sec-fetch-site", "cross-site")], 403),
            (vec![("sec-fetch-site", "same-site")], 403),
            (vec![("sec-fetch-site", "unknown")], 403),
            (vec![("sec-fetch-site", "none")], 200),
            (vec![("sec-fetch-site", "same-origin")], 200),
            (vec![("sec-fetch-site", "none"), ("sec-fetch-site", "cross-site")], 403),
        ] {
            let all = [vec![("host", "localhost:8001")], headers.clone()].concat();
            assert_eq!(check(&guard(8001, true), "/api", &all), code, "{headers:?}");
        }
    }

    #[test]
    fn request_needs_exactly_the_token() {
        let token = Token::generate();
        let text = token.text().to_owned();
        let guard = Guard { token: Some(token), ..guard(8001, true) };
        let with = |values: &[String]| {
            let headers = values.iter().map(|value| ("authorization", value.as_str()));
            check(
                &guard,
                "/api",
                &[("host", "localhost:8001")].into_iter().chain(headers).collect::<Vec<_>>(),
            )
        };
        let right = format!("Bearer {text}");
        assert_eq!(with(std::slice::from_ref(&right)), 200);
        assert_eq!(with(&[format!("bearer {text}")]), 200);
        assert_eq!(with(&[]), 401);
        for wrong in [
            String::new(),
            "Bearer".to_owned(),
            "Bearer ".to_owned(),
            text.clone(),
            format!("Basic {text}"),
            format!("Bearer {text}x"),
            format!("Bearer  {text}"),
            right[..right.len() - 1].to_owned(),
            format!("Bearer {}", Token::generate().text()),
        ] {
            assert_eq!(with(std::slice::from_ref(&wrong)), 401, "{wrong:?}");
        }
        assert_eq!(with(&[right.clone(), right]), 401);
    }
}
