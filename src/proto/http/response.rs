//! The head of an upstream's answer to an upgrade (RFC 9112 section 4).

use std::mem::MaybeUninit;

use super::request::plain_number;
use super::{Body, MAX_HEADERS, UpgradeList};

/// What an upstream answered; the head itself stays with the caller.
#[derive(Debug, PartialEq, Eq)]
pub struct Response {
    /// 100 to 999.
    pub status: u16,
    /// How a body that follows ends. For the answer to a GET.
    pub body: Body,
    upgrade: UpgradeList,
}

impl Response {
    /// Whether it switches to WebSocket: a 101 that names this protocol and no other. A `bare` 101,
    /// one without `Upgrade`, counts where that is expected: some servers of simple-obfs send it.
    pub fn switches_to_websocket(&self, bare: bool) -> bool {
        let named = self.upgrade.is_websocket() || bare && self.upgrade.is_missing();
        self.status == 101 && named
    }
}

/// Parses a complete head. None: it is malformed, or its framing is ambiguous.
pub fn parse_response(head: &[u8]) -> Option<Response> {
    let mut headers = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let status = config.parse_response_with_uninit_headers(&mut parsed, head, &mut headers).ok()?;
    if status != httparse::Status::Complete(head.len()) {
        return None;
    }
    let status = parsed.code?;
    let mut length = None;
    let mut chunked = false;
    let mut upgrade = UpgradeList::default();
    for header in parsed.headers.iter() {
        if header.name.eq_ignore_ascii_case("content-length") {
            if length.replace(plain_number(header.value)?).is_some() {
                return None;
            }
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            // Any other coding before it changes nothing about where the body ends (RFC 9112
            // section 6.3).
            let last = header.value.rsplit(|&byte| byte == b',').next()?;
            chunked = last.trim_ascii().eq_ignore_ascii_case(b"chunked");
            if !chunked {
                return None;
            }
        } else if header.name.eq_ignore_ascii_case("upgrade") {
            upgrade.add(header.value);
        }
    }
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
        ] {
            assert_eq!(parse(head), None, "{head}");
        }
    }
}
