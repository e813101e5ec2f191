//! Parses and validates a request head (RFC 9112 sections 3, 5 and 6).

use std::mem::MaybeUninit;

use super::{Body, MAX_HEADERS, UpgradeList};
use crate::proto::websocket::{Handshake, Keys};

/// A valid request, borrowed from its head.
#[derive(Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// The method, such as `GET`.
    pub method: &'a str,
    /// The target as sent, for access-log records.
    pub target: &'a str,
    /// The path without the query, as sent: neither decoded nor normalised. It is `*` for an
    /// OPTIONS request about the whole server.
    pub path: &'a str,
    /// The part of the target after the first `?`.
    pub query: Option<&'a str>,
    /// 1.0 or 1.1.
    pub version: Version,
    /// The host without its port and without a trailing dot, otherwise as sent. Empty if an
    /// HTTP/1.0 request has none.
    pub host: &'a str,
    /// The port of the authority; digits only.
    pub port: Option<&'a str>,
    /// Whether this is a WebSocket upgrade: GET, HTTP/1.1, `Upgrade` with the value `websocket`,
    /// and `Connection` with the token `upgrade`.
    pub upgrade: bool,
    /// Whether `Upgrade` is a single line with the value `websocket` and no other. If it is not,
    /// the head must not be forwarded unchanged: see [`super::write_websocket_alone`].
    pub names_websocket_alone: bool,
    /// The kind of upgrade, if it is one that can be answered here.
    pub handshake: Option<Handshake<'a>>,
    /// The body that follows the head.
    pub body: Body,
    /// Whether the client keeps the connection open for further requests.
    pub keep_alive: bool,
    /// Whether the client waits for a 100 response before it sends the body.
    pub expects_continue: bool,
}

/// The supported HTTP versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
}

/// Why a head is refused. The connection is closed after the response, because the start of the
/// next request is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reject {
    /// 400, 405, 408, 431, 503 or 505.
    pub status: u16,
    /// One word, for access-log records.
    pub reason: &'static str,
    /// The body of the response.
    pub text: &'static str,
}

const fn bad(reason: &'static str, text: &'static str) -> Reject {
    Reject { status: 400, reason, text }
}

/// Parses a complete head, from its first line to its empty line, as [`super::HeadScan`] delimits
/// it.
///
/// # Errors
/// Everything that RFC 9112 leaves open to interpretation is an error.
pub fn parse_request(head: &[u8], max_headers: usize) -> Result<Request<'_>, Reject> {
    let mut headers = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut parsed = httparse::Request::new(&mut []);
    let allowed = &mut headers[..max_headers.min(MAX_HEADERS)];
    match parsed.parse_with_uninit_headers(head, allowed) {
        Ok(httparse::Status::Complete(length)) if length == head.len() => {}
        // The scanner and the parser disagree on where the head ends.
        Ok(_) => return Err(bad("bad_head", "malformed request head")),
        Err(httparse::Error::TooManyHeaders) => {
            return Err(Reject {
                status: 431,
                reason: "too_many_fields",
                text: "too many header fields",
            });
        }
        Err(httparse::Error::Version) if names_a_version(head) => {
            return Err(Reject {
                status: 505,
                reason: "bad_version",
                text: "only HTTP/1.1 and HTTP/1.0 are spoken here",
            });
        }
        Err(httparse::Error::HeaderName) => {
            return Err(bad("bad_field_name", "malformed header field name"));
        }
        Err(httparse::Error::HeaderValue) => {
            return Err(bad("bad_field_value", "malformed header field value"));
        }
        Err(_) => return Err(bad("bad_request_line", "malformed request line")),
    }
    let (Some(method), Some(target)) = (parsed.method, parsed.path) else {
        return Err(bad("bad_request_line", "malformed request line"));
    };
    let version = if parsed.version == Some(1) { Version::Http11 } else { Version::Http10 };
    if method == "CONNECT" {
        return Err(Reject { status: 405, reason: "connect", text: "CONNECT is not offered" });
    }
    let fields = Fields::collect(parsed.headers)?;
    let target = Target::parse(target, method)?;
    let (host, port) = authority(&target, &fields, version)?;
    let websocket = fields.upgrade.has_websocket() && fields.connection_upgrade;
    let upgrade = websocket && method == "GET" && version == Version::Http11;
    // Chunked framing is ambiguous on an upgrade and in HTTP/1.0.
    if websocket && fields.chunked {
        return Err(bad("bad_coding", "Transfer-Encoding on an upgrade"));
    }
    if fields.chunked && version == Version::Http10 {
        return Err(bad("bad_coding", "Transfer-Encoding in HTTP/1.0"));
    }
    let has_body = fields.content_length.is_some_and(|length| length > 0);
    let names_websocket_alone = fields.upgrade.is_websocket_alone();
    // A handshake is answered here only if it is exactly what the clients of that handshake send.
    let handshake = if upgrade && names_websocket_alone && !fields.expects_continue {
        Handshake::of(&fields.websocket, has_body)
    } else {
        None
    };
    Ok(Request {
        method,
        target: target.whole,
        path: target.path,
        query: target.query,
        version,
        host,
        port,
        upgrade,
        names_websocket_alone,
        handshake,
        body: if fields.chunked {
            Body::CHUNKED
        } else {
            Body::Length(fields.content_length.unwrap_or(0))
        },
        keep_alive: match version {
            Version::Http11 => !fields.close,
            Version::Http10 => fields.keep_alive && !fields.close,
        },
        expects_continue: fields.expects_continue,
    })
}

/// Returns true when the third word of the request line is an HTTP version, though not a supported
/// one. Returns false when, for example, a space in the target displaced the version.
fn names_a_version(head: &[u8]) -> bool {
    let line = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
    let version = line.splitn(3, |&byte| byte == b' ').nth(2).unwrap_or_default();
    version.starts_with(b"HTTP/") && !version.contains(&b' ')
}

/// The fields that matter for framing and routing.
#[derive(Default)]
struct Fields<'a> {
    host: Option<&'a [u8]>,
    content_length: Option<u64>,
    chunked: bool,
    upgrade: UpgradeList,
    connection_upgrade: bool,
    websocket: Keys<'a>,
    close: bool,
    keep_alive: bool,
    expects_continue: bool,
}

impl<'a> Fields<'a> {
    fn collect(headers: &[httparse::Header<'a>]) -> Result<Self, Reject> {
        let mut fields = Fields::default();
        for header in headers {
            fields.add(header.name, header.value)?;
        }
        if fields.chunked && fields.content_length.is_some() {
            return Err(bad("two_framings", "both Transfer-Encoding and Content-Length"));
        }
        Ok(fields)
    }

    fn add(&mut self, name: &str, value: &'a [u8]) -> Result<(), Reject> {
        // Comparing lengths first is cheap, and most fields are none of these.
        match name.len() {
            4 if name.eq_ignore_ascii_case("host") && self.host.replace(value).is_some() => {
                return Err(bad("two_hosts", "more than one Host"));
            }
            14 if name.eq_ignore_ascii_case("content-length") => {
                let length = plain_number(value)
                    .ok_or(bad("bad_length", "Content-Length is not a number"))?;
                if self.content_length.replace(length).is_some() {
                    return Err(bad("two_lengths", "more than one Content-Length"));
                }
            }
            17 if name.eq_ignore_ascii_case("transfer-encoding") => {
                if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(bad("bad_coding", "unknown Transfer-Encoding"));
                }
                self.chunked = true;
            }
            7 if name.eq_ignore_ascii_case("upgrade") => self.upgrade.add(value),
            10 if name.eq_ignore_ascii_case("connection") => {
                for token in value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
                    self.connection_upgrade |= token.eq_ignore_ascii_case(b"upgrade");
                    self.close |= token.eq_ignore_ascii_case(b"close");
                    self.keep_alive |= token.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            17 if name.eq_ignore_ascii_case("sec-websocket-key") => self.websocket.key.add(value),
            21 if name.eq_ignore_ascii_case("sec-websocket-version") => {
                self.websocket.version.add(value);
            }
            22 if name.eq_ignore_ascii_case("sec-websocket-protocol") => {
                self.websocket.protocol.add(value);
            }
            6 if name.eq_ignore_ascii_case("expect") => {
                self.expects_continue |= value.eq_ignore_ascii_case(b"100-continue");
            }
            _ => {}
        }
        Ok(())
    }
}

/// Parses a number that has digits only (RFC 9110 section 8.6). The limit of 18 digits guarantees
/// that it fits in a u64.
pub(super) fn plain_number(value: &[u8]) -> Option<u64> {
    let digits = (1..=18).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(value).ok().filter(|_| digits)?;
    text.parse().ok()
}

/// The request target (RFC 9112 section 3.2).
struct Target<'a> {
    whole: &'a str,
    /// The authority of the absolute form.
    authority: Option<&'a str>,
    default_port: &'static str,
    path: &'a str,
    query: Option<&'a str>,
}

impl<'a> Target<'a> {
    fn parse(whole: &'a str, method: &str) -> Result<Self, Reject> {
        if !whole.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(bad(
                "bad_target",
                "the request target has bytes that must be percent-encoded",
            ));
        }
        if whole.contains('#') {
            return Err(bad("bad_target", "the request target has a fragment"));
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
            return Err(bad("bad_target", "the request target is no path"));
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
fn authority<'a>(
    target: &Target<'a>,
    fields: &Fields<'a>,
    version: Version,
) -> Result<(&'a str, Option<&'a str>), Reject> {
    let named = match fields.host {
        Some(value) => Some(split_port(std::str::from_utf8(value).map_err(|_| BAD_HOST)?)?),
        None if version == Version::Http10 => None,
        None => return Err(bad("no_host", "no Host")),
    };
    let Some(absolute) = target.authority else { return Ok(named.unwrap_or(("", None))) };
    let absolute = split_port(absolute)?;
    let agrees = |named: (&str, Option<&str>)| {
        let port = |port: Option<&'a str>| port.unwrap_or(target.default_port);
        let same = port(absolute.1) == named.1.unwrap_or(target.default_port);
        same && named.0.eq_ignore_ascii_case(absolute.0)
    };
    if named.is_none_or(agrees) {
        Ok(absolute)
    } else {
        Err(bad("other_host", "the request target and Host disagree"))
    }
}

const BAD_HOST: Reject = bad("bad_host", "malformed Host");

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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(head: &str) -> Result<Request<'_>, Reject> {
        parse_request(head.as_bytes(), 100)
    }

    fn status(head: &str) -> u16 {
        parse(head).map_or_else(|reject| reject.status, |_| 0)
    }

    #[test]
    fn a_plain_request_is_read() {
        let request = parse("GET /a/b?c=d?e HTTP/1.1\r\nHost: Live.Example:8080\r\n\r\n").unwrap();
        assert_eq!((request.method, request.path, request.query), ("GET", "/a/b", Some("c=d?e")));
        assert_eq!((request.host, request.port), ("Live.Example", Some("8080")));
        assert!(request.keep_alive && !request.upgrade && request.body.is_done());
    }

    #[test]
    fn an_upgrade_needs_all_its_parts() {
        let upgrade = |line: &str, fields: &str| {
            parse(&format!("{line}\r\nHost: a\r\n{fields}\r\n")).unwrap().upgrade
        };
        let get = "GET /stream HTTP/1.1";
        assert!(upgrade(get, "Upgrade: websocket\r\nConnection: Upgrade\r\n"));
        assert!(upgrade(get, "upgrade: WebSocket\r\nconnection: keep-alive, UPGRADE\r\n"));
        assert!(upgrade(get, "Connection: close\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"));
        assert!(upgrade(get, "Connection: upgrade\r\nUpgrade: h2c, websocket\r\n"));
        assert!(upgrade(get, "Upgrade: h2c\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"));
        assert!(!upgrade(get, "Upgrade: websocket\r\n"));
        assert!(!upgrade(get, "Upgrade: websocket\r\nConnection: upgraded\r\n"));
        assert!(!upgrade(get, "Upgrade: h2c\r\nConnection: Upgrade\r\n"));
        assert!(!upgrade("POST / HTTP/1.1", "Upgrade: websocket\r\nConnection: Upgrade\r\n"));
        assert!(!upgrade("GET / HTTP/1.0", "Upgrade: websocket\r\nConnection: Upgrade\r\n"));
    }

    #[test]
    fn ambiguous_heads_are_refused() {
        for (fields, why) in [
            ("", "no Host"),
            ("Host: a\r\nHost: a\r\n", "two Hosts"),
            ("Host: a\r\nX: b\r\n c\r\n", "a folded line"),
            ("Host : a\r\n", "a space before the colon"),
            ("Host: a\r\nX: \0\r\n", "a NUL"),
            ("Host: a\r\nX: \x01\r\n", "a control byte"),
            ("Host: a\r\nContent-Length: +1\r\n", "a sign"),
            ("Host: a\r\nContent-Length: 1, 1\r\n", "a list"),
            ("Host: a\r\nContent-Length:\r\n", "nothing"),
            ("Host: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n", "two lengths"),
            ("Host: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n", "two framings"),
            ("Host: a\r\nTransfer-Encoding: gzip, chunked\r\n", "an unknown coding"),
            ("Host: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "twice"),
            ("Host: a b\r\n", "a space in Host"),
            ("Host: a/b\r\n", "a slash in Host"),
            ("Host: user@a\r\n", "user info in Host"),
            ("Host: a:8x\r\n", "a port that is none"),
            ("Host: a:65536\r\n", "a port beyond the last"),
            ("Host:\r\n", "an empty Host"),
        ] {
            assert_eq!(status(&format!("GET / HTTP/1.1\r\n{fields}\r\n")), 400, "{why}");
        }
        let upgrade = "Host: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n";
        let chunked = "Transfer-Encoding: chunked\r\n";
        assert_eq!(status(&format!("GET / HTTP/1.1\r\n{upgrade}{chunked}\r\n")), 400);
    }

    #[test]
    fn request_lines_are_judged() {
        for (line, expected) in [
            ("GET /#top HTTP/1.1", 400),
            ("GET a HTTP/1.1", 400),
            ("GET  / HTTP/1.1", 400),
            ("GET /\x7f HTTP/1.1", 400),
            ("GET /\u{e9} HTTP/1.1", 400),
            ("CONNECT a:443 HTTP/1.1", 405),
            ("PRI * HTTP/2.0", 505),
            ("GET / HTTP/1.2", 505),
            ("OPTIONS * HTTP/1.1", 0),
            ("OPTIONS *?a HTTP/1.1", 400),
            ("GET * HTTP/1.1", 400),
            ("GET http://a/x HTTP/1.1", 0),
            ("GET http://b/x HTTP/1.1", 400),
            ("GET http://a:80/x HTTP/1.1", 0),
            ("GET http://a:81/x HTTP/1.1", 400),
            ("GET /a b HTTP/1.1", 400),
            ("GET ftp://a/x HTTP/1.1", 400),
        ] {
            assert_eq!(status(&format!("{line}\r\nHost: a\r\n\r\n")), expected, "{line}");
        }
    }

    #[test]
    fn too_many_fields_are_431() {
        let fields = "X: y\r\n".repeat(100);
        assert_eq!(status(&format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")), 431);
    }

    #[test]
    fn the_absolute_form_names_host_and_path() {
        let request = parse("GET HTTP://A.example?q HTTP/1.1\r\nHost: a.example\r\n\r\n").unwrap();
        assert_eq!((request.host, request.path, request.query), ("A.example", "/", Some("q")));
    }

    #[test]
    fn http_1_0_closes_unless_asked_otherwise() {
        let request = parse("GET / HTTP/1.0\r\n\r\n").unwrap();
        assert!(!request.keep_alive);
        assert_eq!(request.host, "");
        assert!(parse("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").unwrap().keep_alive);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_request(&bytes, 100);
        }
    }
}
