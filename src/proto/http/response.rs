//! Parses the head of an upstream's response (RFC 9112 sections 4, 6 and 9).
//!
//! Where a response ends depends on the request, too. What two readers could take for different
//! responses is refused, as for requests: the bytes of one response could otherwise become the next
//! one, which another client gets.

use std::mem::MaybeUninit;

use super::request::parse_digits;
use super::{Body, MAX_HEADERS, UpgradeList, Version};

/// What a response depends on in its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestKind {
    /// HEAD: the response has no body, whatever its fields announce.
    Head,
    /// GET with `Upgrade`: the response may be a 101.
    Upgrade,
    /// Any other method but CONNECT.
    Other,
}

/// A parsed response. The head itself stays with the caller.
#[derive(Debug, PartialEq, Eq)]
pub struct Response {
    /// 100 to 999.
    pub status: u16,
    /// 1.0 or 1.1.
    pub version: Version,
    /// How the body that follows is delimited.
    pub body: Body,
    /// `Content-Length`. A response without a body may announce the length that it would have in
    /// response to GET.
    pub length: Option<u64>,
    /// Whether the upstream keeps the connection open behind the body.
    pub is_persistent: bool,
    upgrade: UpgradeList,
}

impl Response {
    /// Returns true for an interim response, which another one follows (RFC 9110 section 15.2). A
    /// 101 is final: what follows it is not HTTP.
    pub fn is_interim(&self) -> bool {
        matches!(self.status, 100 | 102..=199)
    }

    /// Returns true when the response switches to WebSocket: a 101 whose `Upgrade` names this
    /// protocol and no other. With `may_be_bare`, a 101 without `Upgrade` counts too: some
    /// simple-obfs servers send it.
    pub fn switches_to_websocket(&self, may_be_bare: bool) -> bool {
        let named = self.upgrade.is_only_websocket() || may_be_bare && self.upgrade.is_missing();
        self.status == 101 && named
    }
}

/// Returns true when a head can begin with these bytes. The caller skips the empty lines before
/// them. This detects an upstream that speaks another protocol by its first bytes, even if it never
/// ends a line.
pub fn may_begin_response(bytes: &[u8]) -> bool {
    // A lone CR may be the start of one more empty line.
    bytes == b"\r" || bytes.iter().zip(STATUS_LINE).all(|(byte, allowed)| allowed.contains(byte))
}

/// The bytes allowed at each position of a status line, up to the end of the status code (RFC 9112
/// section 4).
const STATUS_LINE: [&[u8]; 13] = {
    const DIGIT: &[u8] = b"0123456789";
    [b"H", b"T", b"T", b"P", b"/", b"1", b".", b"01", b" ", b"123456789", DIGIT, DIGIT, b" \r"]
};

/// Parses a complete head, as [`super::HeadScan`] delimits it. Returns `None` if it is malformed or
/// its framing is ambiguous.
pub fn parse_response(head: &[u8], kind: RequestKind) -> Option<Response> {
    // 1. The syntax. The parser refuses folded lines and white space before a colon.
    let mut headers = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let result = config.parse_response_with_uninit_headers(&mut parsed, head, &mut headers).ok()?;
    if result != httparse::Status::Complete(head.len()) {
        return None;
    }
    let status = parsed.code.filter(|status| *status >= 100)?;
    let version = if parsed.version == Some(1) { Version::Http11 } else { Version::Http10 };
    if status == 101 && kind != RequestKind::Upgrade {
        return None;
    }

    // 2. The fields. Chunked framing does not exist in HTTP/1.0 (RFC 9112 section 6.1).
    let fields = Fields::collect(parsed.headers)?;
    let is_chunked = fields.is_chunked;
    if is_chunked && (fields.length.is_some() || version == Version::Http10) {
        return None;
    }

    // 3. The framing (RFC 9112 section 6.3). An interim response has no body, and the next bytes
    // are another head. If it announces a body, they could be that, too.
    let announces_body = is_chunked || fields.length.is_some_and(|length| length > 0);
    if status < 200 && announces_body {
        return None;
    }
    let body = if kind == RequestKind::Head || matches!(status, 100..=199 | 204 | 304) {
        Body::NONE
    } else if is_chunked {
        Body::CHUNKED
    } else {
        fields.length.map_or(Body::UntilClose, Body::Length)
    };

    // 4. The connection. A 204 never has a body; if one is announced, its bytes may follow. So may
    // the last chunk after a 304 that announces chunks, as some servers send it.
    let may_persist = version == Version::Http11 || fields.has_keep_alive;
    let bytes_may_follow = match status {
        204 => announces_body,
        304 => is_chunked,
        _ => body == Body::UntilClose,
    };
    Some(Response {
        status,
        version,
        body,
        length: fields.length,
        is_persistent: may_persist && !fields.has_close && !bytes_may_follow,
        upgrade: fields.upgrade,
    })
}

/// The fields that matter for framing and for the connection.
#[derive(Default)]
struct Fields {
    length: Option<u64>,
    is_chunked: bool,
    has_close: bool,
    has_keep_alive: bool,
    upgrade: UpgradeList,
}

impl Fields {
    /// Returns `None` if a field could be read in two ways.
    fn collect(headers: &[httparse::Header<'_>]) -> Option<Fields> {
        let mut fields = Fields::default();
        for httparse::Header { name, value } in headers {
            match name.len() {
                14 if name.eq_ignore_ascii_case("content-length") => {
                    let length = parse_digits(value)?;
                    if fields.length.replace(length).is_some() {
                        return None;
                    }
                }
                // Any other coding would have to be decoded, because the framing is made anew.
                17 if name.eq_ignore_ascii_case("transfer-encoding") => {
                    if fields.is_chunked || !value.eq_ignore_ascii_case(b"chunked") {
                        return None;
                    }
                    fields.is_chunked = true;
                }
                10 if name.eq_ignore_ascii_case("connection") => {
                    for token in value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
                        fields.has_close |= token.eq_ignore_ascii_case(b"close");
                        fields.has_keep_alive |= token.eq_ignore_ascii_case(b"keep-alive");
                    }
                }
                7 if name.eq_ignore_ascii_case("upgrade") => fields.upgrade.add(value),
                _ => {}
            }
        }
        Some(fields)
    }
}

#[cfg(test)]
mod tests;
