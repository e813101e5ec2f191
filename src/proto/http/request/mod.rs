//! Parses and validates a request head (RFC 9112 sections 3, 5 and 6).

mod fields;
mod target;

use std::mem::MaybeUninit;

use self::fields::Fields;
pub(super) use self::fields::parse_digits;
use self::target::{Target, authority};
use super::{Body, MAX_HEADERS};
use crate::proto::websocket::Handshake;

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
    pub is_upgrade: bool,
    /// Whether `Upgrade` is a single line with the value `websocket` and no other. If it is not,
    /// the head must not be forwarded unchanged: see [`super::write_websocket_alone`].
    pub names_websocket_alone: bool,
    /// The kind of upgrade, if it is one that can be answered here.
    pub handshake: Option<Handshake<'a>>,
    /// The body that follows the head.
    pub body: Body,
    /// Whether the client keeps the connection open for further requests.
    pub is_persistent: bool,
    /// Whether the client waits for a 100 response before it sends the body.
    pub expects_continue: bool,
    /// How many more servers may pass an OPTIONS request on (RFC 9110 section 7.6.2). `None` if
    /// that is not limited.
    pub max_forwards: Option<u64>,
}

impl Request<'_> {
    /// Returns false if the request must be answered here.
    pub fn may_be_passed_on(&self) -> bool {
        self.max_forwards != Some(0)
    }
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
    /// 400, 405, 408, 413, 417, 421, 431, 503 or 505.
    pub status: u16,
    /// One word, for access-log records.
    pub reason: &'static str,
    /// The body of the response.
    pub text: &'static str,
}

/// A 400.
const fn bad_request(reason: &'static str, text: &'static str) -> Reject {
    Reject { status: 400, reason, text }
}

/// Parses a complete head, from its first line to its empty line, as [`super::HeadScan`] delimits
/// it.
///
/// # Errors
/// Everything that RFC 9112 leaves open to interpretation is an error.
pub fn parse_request(head: &[u8], max_headers: usize) -> Result<Request<'_>, Reject> {
    // 1. The syntax.
    let mut headers = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut parsed = httparse::Request::new(&mut []);
    let allowed = &mut headers[..max_headers.min(MAX_HEADERS)];
    check_syntax(parsed.parse_with_uninit_headers(head, allowed), head)?;
    let (Some(method), Some(target)) = (parsed.method, parsed.path) else {
        return Err(BAD_REQUEST_LINE);
    };
    let version = if parsed.version == Some(1) { Version::Http11 } else { Version::Http10 };
    match method {
        "CONNECT" => return Err(NO_CONNECT),
        "TRACE" => return Err(NO_TRACE),
        _ => {}
    }

    // 2. The target and the fields.
    let fields = Fields::collect(parsed.headers)?;
    let target = Target::parse(target, method)?;
    let (host, port) = authority(&target, &fields, version)?;

    // 3. The framing. Chunked framing is ambiguous on an upgrade and in HTTP/1.0.
    let wants_websocket = fields.upgrade.has_websocket() && fields.has_connection_upgrade;
    if wants_websocket && fields.is_chunked {
        return Err(bad_request("bad_coding", "Transfer-Encoding on an upgrade"));
    }
    if fields.is_chunked && version == Version::Http10 {
        return Err(bad_request("bad_coding", "Transfer-Encoding in HTTP/1.0"));
    }
    let length = fields.content_length.unwrap_or(0);
    let expects_continue = fields.expects_continue(version)?;

    // 4. The upgrade. A handshake is answered here only if it is exactly what the clients of that
    // handshake send.
    let is_upgrade = wants_websocket && method == "GET" && version == Version::Http11;
    let names_websocket_alone = fields.upgrade.is_single_websocket();
    let handshake = if is_upgrade && names_websocket_alone && !expects_continue {
        Handshake::of(&fields.websocket, length > 0)
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
        is_upgrade,
        names_websocket_alone,
        handshake,
        body: if fields.is_chunked { Body::CHUNKED } else { Body::Length(length) },
        is_persistent: !fields.has_close && (version == Version::Http11 || fields.has_keep_alive),
        expects_continue,
        max_forwards: fields.max_forwards.filter(|_| method == "OPTIONS"),
    })
}

const NO_CONNECT: Reject =
    Reject { status: 405, reason: "connect", text: "CONNECT is not offered" };
/// A TRACE shows a client what proxies in front of this one have added, so no route gets it.
const NO_TRACE: Reject = Reject { status: 405, reason: "trace", text: "TRACE is not offered" };
const BAD_REQUEST_LINE: Reject = bad_request("bad_request_line", "malformed request line");

/// Turns the result of the parser into the reason for a refusal.
fn check_syntax(
    result: Result<httparse::Status<usize>, httparse::Error>,
    head: &[u8],
) -> Result<(), Reject> {
    match result {
        Ok(httparse::Status::Complete(length)) if length == head.len() => Ok(()),
        // The scanner and the parser disagree on where the head ends.
        Ok(_) => Err(bad_request("bad_head", "malformed request head")),
        Err(httparse::Error::TooManyHeaders) => {
            let text = "too many header fields";
            Err(Reject { status: 431, reason: "too_many_fields", text })
        }
        Err(httparse::Error::Version) if names_other_version(head) => {
            let text = "only HTTP/1.1 and HTTP/1.0 are spoken here";
            Err(Reject { status: 505, reason: "bad_version", text })
        }
        Err(httparse::Error::HeaderName) => {
            Err(bad_request("bad_field_name", "malformed header field name"))
        }
        Err(httparse::Error::HeaderValue) => {
            Err(bad_request("bad_field_value", "malformed header field value"))
        }
        Err(_) => Err(BAD_REQUEST_LINE),
    }
}

/// Returns true when the third word of the request line is an HTTP version. It is not a supported
/// one, because the parser refused it. Returns false when, for example, a space in the target
/// displaced the version.
fn names_other_version(head: &[u8]) -> bool {
    let line = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
    let version = line.splitn(3, |&byte| byte == b' ').nth(2).unwrap_or_default();
    version.starts_with(b"HTTP/") && !version.contains(&b' ')
}

#[cfg(test)]
mod tests;
