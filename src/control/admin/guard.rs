//! Whether a request may be answered. A browser on the machine of an operator runs the pages of
//! strangers, and can send requests to loopback addresses: by a name that its owner lets point
//! there (DNS rebinding), and by forms and scripts of other sites.

use hyper::header::{AUTHORIZATION, HOST, HeaderMap, HeaderName, ORIGIN};
use hyper::{Method, StatusCode};

use crate::config::Token;

/// Says where a request comes from (Fetch Metadata Request Headers, section 2.4).
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// The token is missing or is another one.
    NoToken,
    /// The Host is a name that anyone may let point here.
    WrongHost,
    /// A page of another site has sent it.
    CrossSite,
}

impl Refused {
    /// The status of the response, and its text.
    pub(super) fn response(self) -> (StatusCode, &'static str) {
        match self {
            Refused::NoToken => (
                StatusCode::UNAUTHORIZED,
                "the token of admin.token_file is needed: Authorization: Bearer TOKEN",
            ),
            Refused::WrongHost => (
                StatusCode::MISDIRECTED_REQUEST,
                "the Host of a request must be an IP address or localhost",
            ),
            Refused::CrossSite => {
                (StatusCode::FORBIDDEN, "a page of another site must not change anything here")
            }
        }
    }
}

/// Decides. `is_unix` means that the request came over a Unix socket, which no browser reaches.
/// With a token the name of the host does not matter: a page that does not know the token gets
/// nothing.
///
/// # Errors
/// The request is refused.
pub(super) fn check(
    method: &Method,
    headers: &HeaderMap,
    token: Option<&Token>,
    is_unix: bool,
) -> Result<(), Refused> {
    if let Some(token) = token {
        return if shows(headers, token) { Ok(()) } else { Err(Refused::NoToken) };
    }
    if is_unix {
        return Ok(());
    }
    let host = host_of(headers).ok_or(Refused::WrongHost)?;
    if !is_own(host) {
        return Err(Refused::WrongHost);
    }
    if method != Method::GET && method != Method::HEAD && is_cross_site(headers, host) {
        return Err(Refused::CrossSite);
    }
    Ok(())
}

/// Returns true if the request has the token.
fn shows(headers: &HeaderMap, token: &Token) -> bool {
    let Some(value) = headers.get(AUTHORIZATION) else { return false };
    let Some((scheme, shown)) = value.as_bytes().split_at_checked("Bearer ".len()) else {
        return false;
    };
    scheme.eq_ignore_ascii_case(b"Bearer ") && token.is(shown.trim_ascii())
}

/// The value of the only Host.
fn host_of(headers: &HeaderMap) -> Option<&str> {
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts.next()?.to_str().ok()?;
    hosts.next().is_none().then_some(host)
}

/// Returns true if a host, with or without a port, is an IP address or `localhost`: names that a
/// stranger cannot let point elsewhere.
fn is_own(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) if port.is_empty() || port.starts_with(':') => {
                return address.parse::<std::net::Ipv6Addr>().is_ok();
            }
            _ => return false,
        },
        None => host.split_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<std::net::Ipv4Addr>().is_ok()
}

/// Returns true if a browser says that a page of another site has sent the request. Other clients
/// say nothing.
fn is_cross_site(headers: &HeaderMap, host: &str) -> bool {
    let mut sites = headers.get_all(SEC_FETCH_SITE).iter();
    if sites.any(|site| site != "same-origin" && site != "none") {
        return true;
    }
    let mut origins = headers.get_all(ORIGIN).iter();
    origins.any(|origin| {
        let origin = origin.to_str().unwrap_or_default();
        let own = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        !own.is_some_and(|own| own.eq_ignore_ascii_case(host))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_static(name), value.parse().expect("a value"));
        }
        headers
    }

    fn post(fields: &[(&'static str, &str)]) -> Result<(), Refused> {
        check(&Method::POST, &headers(fields), None, false)
    }

    #[test]
    fn without_a_token_only_the_own_addresses_are_a_host() {
        for host in ["127.0.0.1:9901", "localhost", "LocalHost:9901", "[::1]", "[::1]:9901"] {
            assert_eq!(post(&[("host", host)]), Ok(()), "{host}");
        }
        for host in
            ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "", "[::1]x"]
        {
            assert_eq!(post(&[("host", host)]), Err(Refused::WrongHost), "{host}");
        }
        assert_eq!(post(&[]), Err(Refused::WrongHost));
        let two = [("host", "localhost"), ("host", "localhost")];
        assert_eq!(post(&two), Err(Refused::WrongHost));
        // No browser reaches a Unix socket.
        assert_eq!(check(&Method::POST, &headers(&[]), None, true), Ok(()));
    }

    #[test]
    fn pages_of_other_sites_change_nothing() {
        let with = |name, value| post(&[("host", "127.0.0.1:9901"), (name, value)]);
        assert_eq!(with("origin", "http://127.0.0.1:9901"), Ok(()));
        assert_eq!(with("sec-fetch-site", "same-origin"), Ok(()));
        assert_eq!(with("sec-fetch-site", "none"), Ok(()));
        for origin in ["http://evil.example", "null", "http://127.0.0.1:80", "127.0.0.1:9901"] {
            assert_eq!(with("origin", origin), Err(Refused::CrossSite), "{origin}");
        }
        assert_eq!(with("sec-fetch-site", "cross-site"), Err(Refused::CrossSite));
        assert_eq!(with("sec-fetch-site", "same-site"), Err(Refused::CrossSite));
        let get = headers(&[("host", "127.0.0.1"), ("origin", "http://evil.example")]);
        assert_eq!(check(&Method::GET, &get, None, false), Ok(()));
    }

    #[test]
    fn with_a_token_it_alone_decides() {
        let token = Token::new("file".into(), TOKEN).expect("a token");
        let with = |fields: &[(&'static str, &str)]| {
            check(&Method::GET, &headers(fields), Some(&token), false)
        };
        let bearer = format!("Bearer {TOKEN}");
        assert_eq!(with(&[("authorization", &bearer)]), Ok(()));
        assert_eq!(with(&[("authorization", &bearer.replace("Bearer", "bearer"))]), Ok(()));
        assert_eq!(with(&[("authorization", TOKEN)]), Err(Refused::NoToken));
        assert_eq!(with(&[("authorization", "Bearer 0123")]), Err(Refused::NoToken));
        assert_eq!(with(&[("host", "localhost")]), Err(Refused::NoToken));
        // Over a Unix socket, too.
        assert_eq!(check(&Method::GET, &headers(&[]), Some(&token), true), Err(Refused::NoToken));
    }
}
