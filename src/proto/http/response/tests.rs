//! Heads of upstreams, and bytes that cannot begin one.

use super::*;
use proptest::prelude::*;

fn parse(head: &str, kind: RequestKind) -> Option<Response> {
    parse_response(head.as_bytes(), kind)
}

fn body(head: &str) -> Option<(u16, Body)> {
    parse(head, RequestKind::Other).map(|response| (response.status, response.body))
}

fn is_persistent(version: &str, fields: &str) -> bool {
    let head = format!("{version} 200 OK\r\n{fields}\r\n");
    parse(&head, RequestKind::Other).unwrap().is_persistent
}

#[test]
fn the_framing_follows_status_and_fields() {
    for (head, expected) in [
        ("HTTP/1.1 403 No\r\nContent-Length: 7\r\n\r\n", (403, Body::Length(7))),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n", (200, Body::CHUNKED)),
        ("HTTP/1.0 200 OK\r\n\r\n", (200, Body::UntilClose)),
        ("HTTP/1.1 200 OK\r\n\r\n", (200, Body::UntilClose)),
        ("HTTP/1.1 100 Continue\r\n\r\n", (100, Body::NONE)),
        ("HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", (204, Body::NONE)),
        ("HTTP/1.1 204 No Content\r\nContent-Length: 7\r\n\r\n", (204, Body::NONE)),
        ("HTTP/1.1 304 Not\r\nContent-Length: 7\r\n\r\n", (304, Body::NONE)),
        ("HTTP/1.1 304 Not\r\nTransfer-Encoding: chunked\r\n\r\n", (304, Body::NONE)),
    ] {
        assert_eq!(body(head), Some(expected), "{head}");
    }
}

#[test]
fn a_response_to_head_announces_a_body_that_it_has_not() {
    for (fields, length) in
        [("Content-Length: 7\r\n", Some(7)), ("Transfer-Encoding: chunked\r\n", None), ("", None)]
    {
        let head = format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
        let response = parse(&head, RequestKind::Head).unwrap();
        assert_eq!((response.body, response.length), (Body::NONE, length), "{fields}");
        assert!(response.is_persistent, "{fields}");
    }
}

#[test]
fn the_connection_persists_by_version_and_fields() {
    const LENGTH: &str = "Content-Length: 7\r\n";
    for (version, connection, expected) in [
        ("HTTP/1.1", "", true),
        ("HTTP/1.1", "Connection: keep-alive\r\n", true),
        ("HTTP/1.1", "Connection: x, Close\r\n", false),
        ("HTTP/1.1", "Connection: keep-alive\r\nConnection: close\r\n", false),
        ("HTTP/1.0", "", false),
        ("HTTP/1.0", "Connection: Keep-Alive\r\n", true),
        ("HTTP/1.0", "Connection: keep-alive, close\r\n", false),
    ] {
        let fields = format!("{LENGTH}{connection}");
        assert_eq!(is_persistent(version, &fields), expected, "{version} {connection}");
    }
    assert!(is_persistent("HTTP/1.1", "Transfer-Encoding: chunked\r\n"));
    // The close ends the body.
    assert!(!is_persistent("HTTP/1.1", "Connection: keep-alive\r\n"));
    // A body may follow, which would be taken for the next response.
    let no_content = |fields: &str| {
        let head = format!("HTTP/1.1 204 No Content\r\n{fields}\r\n");
        parse(&head, RequestKind::Other).unwrap().is_persistent
    };
    assert!(no_content("") && no_content("Content-Length: 0\r\n"));
    assert!(!no_content(LENGTH) && !no_content("Transfer-Encoding: chunked\r\n"));
    // Some servers send an empty chunked body behind a 304 that announces one.
    let not_modified = |fields: &str| {
        let head = format!("HTTP/1.1 304 Not Modified\r\n{fields}\r\n");
        parse(&head, RequestKind::Other).unwrap().is_persistent
    };
    assert!(not_modified("") && not_modified(LENGTH));
    assert!(!not_modified("Transfer-Encoding: chunked\r\n"));
}

#[test]
fn the_version_is_known() {
    let version = |head: &str| parse(head, RequestKind::Other).unwrap().version;
    assert_eq!(version("HTTP/1.0 200 OK\r\n\r\n"), Version::Http10);
    assert_eq!(version("HTTP/1.1 200\r\n\r\n"), Version::Http11);
}

#[test]
fn interim_responses_are_those_that_another_one_follows() {
    for (status, expected) in [(100, true), (101, false), (103, true), (199, true), (200, false)] {
        let head = format!("HTTP/1.1 {status} A\r\n\r\n");
        assert_eq!(parse(&head, RequestKind::Upgrade).unwrap().is_interim(), expected, "{status}");
    }
}

#[test]
fn a_101_is_for_those_who_asked_for_an_upgrade() {
    let head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n";
    assert!(parse(head, RequestKind::Upgrade).is_some());
    assert_eq!(parse(head, RequestKind::Other), None);
    assert_eq!(parse(head, RequestKind::Head), None);
}

#[test]
fn a_101_switches_to_websocket_alone() {
    let switches = |fields: &str, bare| {
        let head = format!("HTTP/1.1 101 Switching Protocols\r\n{fields}\r\n");
        parse(&head, RequestKind::Upgrade).is_some_and(|it| it.switches_to_websocket(bare))
    };
    for bare in [false, true] {
        assert!(switches("upgrade: WebSocket\r\n", bare));
        assert!(!switches("Upgrade: h2c\r\n", bare));
        assert!(!switches("Upgrade: websocket\r\nUpgrade: h2c\r\n", bare));
        assert!(!switches("Upgrade:\r\n", bare));
        assert_eq!(switches("Server: x\r\n", bare), bare);
    }
    let ok = parse("HTTP/1.1 200 OK\r\nUpgrade: websocket\r\n\r\n", RequestKind::Upgrade).unwrap();
    assert!(!ok.switches_to_websocket(true));
}

#[test]
fn malformed_and_ambiguous_responses_are_refused() {
    for head in [
        "SSH-2.0-x\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 020 OK\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1  200 OK\r\n\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        "HTTP/1.1 200 O\0K\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        "HTTP/1.1 200 OK\r\n: no name\r\n\r\n",
        "HTTP/1.1 200 OK\r\n A: b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\r\n\tc: d\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length : 1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\rc\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: \0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1, 1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 0x1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1 1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 9999999999999999999\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 304 Not\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: x\x0bchunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding:\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 100 Continue\r\nContent-Length: 1\r\n\r\n",
        "HTTP/1.1 103 Early\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 101 Switching\r\nContent-Length: 1\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\n",
    ] {
        for kind in [RequestKind::Head, RequestKind::Upgrade, RequestKind::Other] {
            assert_eq!(parse(head, kind), None, "{head:?}");
        }
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
        if parse(&head, RequestKind::Upgrade).is_some() {
            for end in 0..=head.len() {
                prop_assert!(may_begin_response(&head.as_bytes()[..end]), "{}", &head[..end]);
            }
        }
    }
}
