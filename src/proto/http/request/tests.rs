//! Request heads that are valid, and those that are refused.

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
    assert!(request.is_persistent && !request.is_upgrade && request.body.is_done());
}

#[test]
fn an_upgrade_needs_all_its_parts() {
    let upgrade = |line: &str, fields: &str| {
        parse(&format!("{line}\r\nHost: a\r\n{fields}\r\n")).unwrap().is_upgrade
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
        ("TRACE / HTTP/1.1", 405),
        ("TRACE / HTTP/1.0", 405),
        ("trace / HTTP/1.1", 0),
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
fn expectations_are_met_or_refused() {
    let expect = |value: &str| {
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\n{value}\r\n");
        parse(&head).map(|request| request.expects_continue).map_err(|reject| reject.status)
    };
    assert_eq!(expect(""), Ok(false));
    assert_eq!(expect("Expect:\r\n"), Ok(false));
    assert_eq!(expect("Expect: 100-Continue\r\n"), Ok(true));
    assert_eq!(expect("Expect: 100-continue, 100-continue,\r\n"), Ok(true));
    for other in ["200-ok", "100-continue; q=1", "100-continue, 200-ok", "100", "\"100-continue\""]
    {
        assert_eq!(expect(&format!("Expect: {other}\r\n")), Err(417), "{other}");
    }
    assert_eq!(expect("Expect: 100-continue\r\nExpect: 200-ok\r\n"), Err(417));
    // HTTP/1.0 has no expectations, so such a client does not wait.
    for value in ["100-continue", "200-ok"] {
        let head = format!("POST / HTTP/1.0\r\nHost: a\r\nExpect: {value}\r\n\r\n");
        assert!(!parse(&head).unwrap().expects_continue, "{value}");
    }
}

#[test]
fn max_forwards_limits_options_alone() {
    let hops = |line: &str, fields: &str| {
        let head = format!("{line} HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        parse(&head).unwrap().max_forwards
    };
    assert_eq!(hops("OPTIONS /", "Max-Forwards: 0\r\n"), Some(0));
    assert_eq!(hops("OPTIONS *", "max-forwards: 7\r\nMax-Forwards: 3\r\n"), Some(3));
    assert_eq!(hops("OPTIONS /", "Max-Forwards: -1\r\n"), None);
    assert_eq!(hops("OPTIONS /", ""), None);
    assert_eq!(hops("GET /", "Max-Forwards: 0\r\n"), None);
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
    assert!(!request.is_persistent);
    assert_eq!(request.host, "");
    assert!(parse("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").unwrap().is_persistent);
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse_request(&bytes, 100);
    }
}
