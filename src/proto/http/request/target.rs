//! The target of a request and the authority that it is for (RFC 9112 section 3).

use super::fields::Fields;
use super::{Reject, Version, bad_request};

/// The request target (RFC 9112 section 3.2).
pub(super) struct Target<'a> {
    pub(super) whole: &'a str,
    /// The authority of the absolute form.
    authority: Option<&'a str>,
    default_port: &'static str,
    pub(super) path: &'a str,
    pub(super) query: Option<&'a str>,
}

impl<'a> Target<'a> {
    pub(super) fn parse(whole: &'a str, method: &str) -> Result<Self, Reject> {
        if !whole.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(bad_request(
                "bad_target",
                "the request target has bytes that must be percent-encoded",
            ));
        }
        if whole.contains('#') {
            return Err(bad_request("bad_target", "the request target has a fragment"));
        }
        let (authority, default_port, rest) = match split_scheme(whole) {
            Some((default_port, rest)) => {
                let end = rest.find(['/', '?']).unwrap_or(rest.len());
                (Some(&rest[..end]), default_port, &rest[end..])
            }
            None => (None, "80", whole),
        };
        let (path, query) = match rest.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (rest, None),
        };
        let path = if path.is_empty() && authority.is_some() { "/" } else { path };
        // The asterisk form means the whole server and is valid for OPTIONS alone (section 3.2.4).
        let is_server = whole == "*" && method == "OPTIONS";
        if !path.starts_with('/') && !is_server {
            return Err(bad_request("bad_target", "the request target is no path"));
        }
        Ok(Target { whole, authority, default_port, path, query })
    }
}

/// The default port of an `http://` or `https://` target, and the part after the scheme.
fn split_scheme(target: &str) -> Option<(&'static str, &str)> {
    let (scheme, rest) = target.split_once("://")?;
    if scheme.eq_ignore_ascii_case("http") {
        Some(("80", rest))
    } else if scheme.eq_ignore_ascii_case("https") {
        Some(("443", rest))
    } else {
        None
    }
}

/// The host and port from `Host` and, in the absolute form, from the target. Both must agree.
pub(super) fn authority<'a>(
    target: &Target<'a>,
    fields: &Fields<'a>,
    version: Version,
) -> Result<(&'a str, Option<&'a str>), Reject> {
    let named = match fields.host {
        Some(value) => Some(split_port(std::str::from_utf8(value).map_err(|_| BAD_HOST)?)?),
        None if version == Version::Http10 => None,
        None => return Err(bad_request("no_host", "no Host")),
    };
    let Some(absolute) = target.authority else { return Ok(named.unwrap_or(("", None))) };
    let absolute = split_port(absolute)?;
    let agrees = |named: (&str, Option<&str>)| {
        let port = |port: Option<&'a str>| port.unwrap_or(target.default_port);
        let is_same_port = port(absolute.1) == named.1.unwrap_or(target.default_port);
        is_same_port && named.0.eq_ignore_ascii_case(absolute.0)
    };
    if named.is_none_or(agrees) {
        Ok(absolute)
    } else {
        Err(bad_request("other_host", "the request target and Host disagree"))
    }
}

const BAD_HOST: Reject = bad_request("bad_host", "malformed Host");

/// Splits `host:port` or `[v6]:port` and removes the trailing dot of a fully qualified name.
fn split_port(authority: &str) -> Result<(&str, Option<&str>), Reject> {
    // An IPv6 literal contains colons, so its end is the closing bracket.
    let host_end = match authority.strip_prefix('[') {
        Some(literal) => literal.find(']').ok_or(BAD_HOST)? + 2,
        None => authority.find(':').unwrap_or(authority.len()),
    };
    let (host, rest) = authority.split_at(host_end);
    let port = match rest.strip_prefix(':') {
        Some("") => None,
        Some(port) if is_port(port) => Some(port),
        None if rest.is_empty() => None,
        _ => return Err(BAD_HOST),
    };
    let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let valid = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(v6) => !v6.is_empty() && v6.bytes().all(|byte| is_host(byte) || byte == b':'),
        None => host.bytes().all(is_host),
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    if valid && !host.is_empty() { Ok((host, port)) } else { Err(BAD_HOST) }
}

/// Returns true for digits that form a valid TCP port.
fn is_port(port: &str) -> bool {
    let digits = port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit());
    digits && port.parse::<u16>().is_ok()
}
