//! Heads of upstreams, and bytes that cannot begin one.

use super::*;
use proptest::prelude::*;

fn parse(head: &str) -> Option<(u16, Body)> {
    parse_response(head.as_bytes()).map(|response| (response.status, response.body))
}

#[test]
fn the_framing_follows_status_and_fields() {
    assert_eq!(parse("HTTP/1.1 101 Switching\r\nA: b\r\n\r\n"), Some((101, Body::NONE)));
    assert_eq!(parse("HTTP/1.1 403 No\r\nContent-Length: 7\r\n\r\n"), Some((403, Body::Length(7))));
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
fn malformed_responses_are_none() {
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
