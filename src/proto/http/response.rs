//! Parses the head of an upstream's response to an upgrade (RFC 9112 section 4).

use std::mem::MaybeUninit;

use super::request::plain_number;
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
    /// protocol and no other. With `bare`, a 101 without `Upgrade` counts too: some simple-obfs
    /// servers send it.
    pub fn switches_to_websocket(&self, bare: bool) -> bool {
        let named = self.upgrade.is_websocket() || bare && self.upgrade.is_missing();
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
    let mut chunked = false;
    let mut upgrade = UpgradeList::default();
    for header in parsed.headers.iter() {
        if header.name.eq_ignore_ascii_case("content-length") {
            if length.replace(plain_number(header.value)?).is_some() {
                return None;
            }
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            // Codings before `chunked` do not change where the body ends (RFC 9112 section 6.3).
            let last = header.value.rsplit(|&byte| byte == b',').next()?;
            chunked = last.trim_ascii().eq_ignore_ascii_case(b"chunked");
            if !chunked {
                return None;
            }
        } else if header.name.eq_ignore_ascii_case("upgrade") {
            upgrade.add(header.value);
        }
    }
    // Responses with status 1xx, 204 or 304 have no body, whatever their fields announce.
    let body = match (status, chunked, length) {
        (100..=199 | 204 | 304, ..) => Body::NONE,
        (_, true, Some(_)) => return None,
        (_, true, None) => Body::CHUNKED,
        (_, false, Some(length)) => Body::Length(length),
        (_, false, None) => Body::UntilClose,
    };
    Some(Response { status, body, upgrade })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(head: &str) -> Option<(u16, Body)> {
        parse_response(head.as_bytes()).map(|response| (response.status, response.body))
    }

    #[test]
    fn the_framing_follows_status_and_fields() {
        assert_eq!(parse("HTTP/1.1 101 Switching\r\nA: b\r\n\r\n"), Some((101, Body::NONE)));
        assert_eq!(
            parse("HTTP/1.1 403 No\r\nContent-Length: 7\r\n\r\n"),
            Some((403, Body::Length(7)))
        );
        assert_eq!(
            parse("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"),
            Some((200, Body::CHUNKED))
        );
        assert_eq!(parse("HTTP/1.0 200 OK\r\n\r\n"), Some((200, Body::UntilClose)));
        assert_eq!(parse("HTTP/1.1 304 Not\r\nContent-Length: 7\r\n\r\n"), Some((304, Body::NONE)));
    }

    #[test]
    fn a_101_switches_to_websocket_alone() {
        let switches = |fields: &str, bare| {
            let head = format!("HTTP/1.1 101 Switching Protocols\r\n{fields}\r\n");
            parse_response(head.as_bytes()).is_some_and(|it| it.switches_to_websocket(bare))
        };
        for bare in [false, true] {
            assert!(switches("upgrade: WebSocket\r\n", bare));
            assert!(!switches("Upgrade: h2c\r\n", bare));
            assert!(!switches("Upgrade: websocket\r\nUpgrade: h2c\r\n", bare));
            assert!(!switches("Upgrade:\r\n", bare));
            assert_eq!(switches("Server: x\r\n", bare), bare);
        }
        let ok = parse_response(b"HTTP/1.1 200 OK\r\nUpgrade: websocket\r\n\r\n").unwrap();
        assert!(!ok.switches_to_websocket(true));
    }

    #[test]
    fn malformed_answers_are_none() {
        for head in [
            "SSH-2.0-x\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
            "HTTP/1.1 20 OK\r\n\r\n",
            "HTTP/1.1 020 OK\r\n\r\n",
        ] {
            assert_eq!(parse(head), None, "{head}");
        }
    }

    #[test]
    fn another_protocol_shows_in_its_first_bytes() {
        for bytes in [
            &b""[..],
            b"\r",
            b"H",
            b"HTTP/1.",
            b"HTTP/1.0 ",
            b"HTTP/1.1 1",
            b"HTTP/1.1 101",
            b"HTTP/1.1 101\r",
            b"HTTP/1.1 101 Switching\r\nanything",
        ] {
            assert!(may_begin_response(bytes), "{}", bytes.escape_ascii());
        }
        for bytes in [
            &b"SSH-2.0-x"[..],
            b"\0",
            b"\x15\x03\x01",
            b"\n",
            b"\rH",
            b" HTTP/1.1",
            b"h",
            b"HTTP/2",
            b"HTTP/1.2",
            b"HTTP/1.1\r",
            b"HTTP/1.1  ",
            b"HTTP/1.1 0",
            b"HTTP/1.1 20 ",
            b"HTTP/1.1 2000",
            b"HTTP/1.1 200\t",
        ] {
            assert!(!may_begin_response(bytes), "{}", bytes.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn every_start_of_a_good_head_may_begin_one(
            line in "HTTP/1\\.[01] [0-9]{2,4}( [ -~]{0,20})?", fields in "(A: [a-z]{0,9}\r\n){0,3}",
        ) {
            let head = format!("{line}\r\n{fields}\r\n");
            if parse_response(head.as_bytes()).is_some() {
                for end in 0..=head.len() {
                    prop_assert!(may_begin_response(&head.as_bytes()[..end]), "{}", &head[..end]);
                }
            }
        }
    }
}
