//! Parses the head of an upstream's response to an upgrade (RFC 9112 section 4).

use std::mem::MaybeUninit;

use super::request::parse_digits;
use super::{Body, MAX_HEADERS, UpgradeList};

/// A parsed response. The head itself stays with the caller.
#[derive(Debug, PartialEq, Eq)]
pub struct Response {
    /// 100 to 999.
    pub status: u16,
    /// How the body that follows is delimited, for a response to GET.
    pub body: Body,
    upgrade: UpgradeList,
}

impl Response {
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

/// Parses a complete head. Returns `None` if it is malformed or its framing is ambiguous.
pub fn parse_response(head: &[u8]) -> Option<Response> {
    let mut headers = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let status = config.parse_response_with_uninit_headers(&mut parsed, head, &mut headers).ok()?;
    if status != httparse::Status::Complete(head.len()) {
        return None;
    }
    let status = parsed.code.filter(|status| *status >= 100)?;
    let mut length = None;
    let mut is_chunked = false;
    let mut upgrade = UpgradeList::default();
    for header in parsed.headers.iter() {
        if header.name.eq_ignore_ascii_case("content-length") {
            if length.replace(parse_digits(header.value)?).is_some() {
                return None;
            }
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            // Codings before `chunked` do not change where the body ends (RFC 9112 section 6.3).
            let last = header.value.rsplit(|&byte| byte == b',').next()?;
            is_chunked = last.trim_ascii().eq_ignore_ascii_case(b"chunked");
            if !is_chunked {
                return None;
            }
        } else if header.name.eq_ignore_ascii_case("upgrade") {
            upgrade.add(header.value);
        }
    }
    // Responses with status 1xx, 204 or 304 have no body, whatever their fields announce.
    let body = if matches!(status, 100..=199 | 204 | 304) {
        Body::NONE
    } else if is_chunked {
        if length.is_some() {
            return None;
        }
        Body::CHUNKED
    } else {
        length.map_or(Body::UntilClose, Body::Length)
    };
    Some(Response { status, body, upgrade })
}

#[cfg(test)]
mod tests;
