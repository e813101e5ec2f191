//! Heads as they come in and as they go on.

use super::super::response_head::Persistence;
use super::super::{Body, Fields, Hop, MAX_HEADERS, RequestKind, parse_request, parse_response};
use super::*;
use proptest::prelude::*;

const DATE: &[u8] = b"Thu, 01 Jan 1970 00:00:00 GMT";
const NONE: Rules<'_, &str, &str> = Rules { set: &[], remove: &[] };

/// The head of a response, as the client gets it.
fn response_with(
    head: &str,
    framing: Framing,
    persistence: Persistence,
    rules: &[Rules<'_, &str, &str>],
) -> String {
    let hop = Hop::of(head.as_bytes()).expect("few names");
    let response = Response { hop: &hop, rules, framing, date: Some(DATE) };
    let mut out = Vec::new();
    write_response(head.as_bytes(), &response, persistence, false, &mut out);
    String::from_utf8(out).unwrap()
}

fn response(fields: &str) -> String {
    let head = format!("HTTP/1.1 200 OK\r\nDate: now\r\n{fields}\r\n");
    let out = response_with(&head, Framing::None, Persistence::Persistent, &[]);
    let fields = out.strip_prefix("HTTP/1.1 200 OK\r\nDate: now\r\n");
    fields.and_then(|fields| fields.strip_suffix("\r\n")).expect("the rest of the head").to_owned()
}

fn client(is_trusted: bool) -> Client<'static> {
    Client {
        address: "192.0.2.1",
        scheme: "https",
        host: b"site.example:8443",
        request_id: "0123abcd",
        is_trusted,
    }
}

/// The fields of a request, as the backend gets them, without ours about the client.
fn request_with(
    fields: &str,
    is_trusted: bool,
    rules: &[Rules<'_, &str, &str>],
    change: impl FnOnce(&mut Request<'_, &str, &str>),
) -> String {
    let head = format!("POST /a?b HTTP/1.1\r\nHost: site.example:8443\r\n{fields}\r\n");
    assert!(parse_request(head.as_bytes(), MAX_HEADERS).is_ok(), "{fields}");
    let hop = Hop::of(head.as_bytes()).expect("few names");
    let mut request = Request {
        hop: &hop,
        target: b"/c",
        host: b"backend",
        client: client(is_trusted),
        rules,
        framing: Framing::None,
        keeps_expect: false,
        max_forwards: None,
        is_upgrade: false,
    };
    change(&mut request);
    let mut out = Vec::new();
    write_request(head.as_bytes(), &request, &mut out);
    let out = String::from_utf8(out).unwrap();
    let fields = out.strip_prefix("POST /c HTTP/1.1\r\nHost: backend\r\n");
    fields.and_then(|fields| fields.strip_suffix("\r\n")).expect("the rest of the head").to_owned()
}

const OURS: &str = "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\n\
                    X-Forwarded-Host: site.example:8443\r\nX-Request-Id: 0123abcd\r\n";

/// What a backend gets of the fields of a client that is not trusted, apart from ours.
fn request(fields: &str) -> String {
    let out = request_with(fields, false, &[], |_| ());
    out.strip_suffix(OURS).expect("our fields").to_owned()
}

#[test]
fn a_response_keeps_its_fields_in_their_order() {
    let head = "HTTP/1.0 404 Nothing here\r\nserver: x\r\nset-cookie: a\r\nETag: \"b\"\r\n\
                date: then\r\nset-cookie: c\r\n\r\n";
    let expected = "HTTP/1.1 404 Nothing here\r\nServer: x\r\nSet-Cookie: a\r\nETag: \"b\"\r\n\
                    Date: then\r\nSet-Cookie: c\r\n\r\n";
    assert_eq!(response_with(head, Framing::None, Persistence::Persistent, &[]), expected);
}

#[test]
fn a_response_loses_what_is_hop_by_hop() {
    let fields = "Connection: keep-alive, X-Hop\r\nX-Hop: a\r\nKeep-Alive: 5\r\nUpgrade: h2c\r\n\
                  Trailer: X\r\nTransfer-Encoding: chunked\r\nProxy-Connection: close\r\nX: y\r\n";
    assert_eq!(response(fields), "X: y\r\n");
}

#[test]
fn the_framing_of_a_response_is_written_once() {
    const HEAD: &str = "HTTP/1.1 200 OK\r\nDate: a\r\nContent-Length: 5\r\nX: y\r\n\r\n";
    for (framing, persistence, expected) in [
        (Framing::Length(5), Persistence::Persistent, "Content-Length: 5\r\nX: y\r\n\r\n"),
        (Framing::Chunked, Persistence::Persistent, "X: y\r\nTransfer-Encoding: chunked\r\n\r\n"),
        (Framing::None, Persistence::Close, "X: y\r\nConnection: close\r\n\r\n"),
        (
            Framing::Length(7),
            Persistence::KeepAlive,
            "Content-Length: 7\r\nX: y\r\nConnection: keep-alive\r\n\r\n",
        ),
    ] {
        let out = response_with(HEAD, framing, persistence, &[]);
        assert_eq!(out, format!("HTTP/1.1 200 OK\r\nDate: a\r\n{expected}"), "{framing:?}");
    }
    // The backend has sent no length, or two, which is refused before.
    for (head, expected) in [
        ("HTTP/1.1 200 OK\r\nDate: a\r\nX: y\r\n\r\n", "X: y\r\nContent-Length: 5\r\n\r\n"),
        (
            "HTTP/1.1 200 OK\r\nDate: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
            "Content-Length: 5\r\n\r\n",
        ),
    ] {
        let out = response_with(head, Framing::Length(5), Persistence::Persistent, &[]);
        assert_eq!(out, format!("HTTP/1.1 200 OK\r\nDate: a\r\n{expected}"));
    }
}

#[test]
fn a_response_has_a_date() {
    let added = "HTTP/1.1 200 OK\r\nX: y\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\n";
    let head = "HTTP/1.1 200 OK\r\nX: y\r\n\r\n";
    assert_eq!(response_with(head, Framing::None, Persistence::Persistent, &[]), added);
    let without = Rules { remove: &["date"], ..NONE };
    let out = response_with(head, Framing::None, Persistence::Persistent, &[without]);
    assert_eq!(out, head);

    let hop = Hop::of(head.as_bytes()).unwrap();
    let interim = Response { hop: &hop, rules: &[NONE], framing: Framing::None, date: None };
    let mut out = Vec::new();
    let early = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    write_response(early, &interim, Persistence::Persistent, false, &mut out);
    assert_eq!(out, early);
}

#[test]
fn an_upgrade_has_fields_about_the_connection() {
    let head = b"HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUPGRADE: WebSocket\r\n\
                 sec-websocket-accept: x\r\n\r\n";
    let hop = Hop::of(head).unwrap();
    let response = Response { hop: &hop, rules: &[NONE], framing: Framing::None, date: None };
    let mut out = Vec::new();
    write_response(head, &response, Persistence::Persistent, true, &mut out);
    let expected = "HTTP/1.1 101 Go\r\nSec-WebSocket-Accept: x\r\nConnection: Upgrade\r\n\
                    Upgrade: websocket\r\n\r\n";
    assert_eq!(String::from_utf8(out).unwrap(), expected);

    let out = request_with("Upgrade: websocket\r\nConnection: upgrade\r\n", false, &[], |it| {
        it.is_upgrade = true;
    });
    assert_eq!(out, format!("{OURS}Connection: Upgrade\r\nUpgrade: websocket\r\n"));
}

#[test]
fn max_forwards_is_written_once_in_place_of_what_the_client_sent() {
    let fields = "Max-Forwards: 5\r\nmax-forwards: 9\r\n";
    let with = |max_forwards, rules: &[Rules<'_, &str, &str>]| {
        let out = request_with(fields, false, rules, |it| it.max_forwards = max_forwards);
        out.replace(OURS, "")
    };
    assert_eq!(with(Some(4), &[]), "Max-Forwards: 4\r\n");
    assert_eq!(with(None, &[]), "Max-Forwards: 5\r\nMax-Forwards: 9\r\n");
    assert_eq!(with(Some(4), &[Rules { remove: &["max-forwards"], ..NONE }]), "");
}

#[test]
fn a_reason_phrase_that_cannot_be_read_is_replaced() {
    for (line, expected) in [
        ("HTTP/1.1 200 All right", "HTTP/1.1 200 All right"),
        ("HTTP/1.1 404 ", "HTTP/1.1 404 "),
        ("HTTP/1.1 404", "HTTP/1.1 404 "),
        ("HTTP/1.1 404 Nicht f\u{fc}r dich", "HTTP/1.1 404 Not Found"),
        ("HTTP/1.1 404 a\tb", "HTTP/1.1 404 Not Found"),
    ] {
        let head = format!("{line}\r\nDate: a\r\n\r\n");
        assert!(parse_response(head.as_bytes(), RequestKind::Other).is_some());
        let out = response_with(&head, Framing::None, Persistence::Persistent, &[]);
        assert_eq!(out, format!("{expected}\r\nDate: a\r\n\r\n"));
    }
}

#[test]
fn rules_set_and_remove_fields() {
    let head =
        "HTTP/1.1 200 OK\r\nDate: a\r\nServer: b\r\nX-One: c\r\nX-One: d\r\nX-Two: e\r\n\r\n";
    let set = [("x-one", "new"), ("x-three", "f")];
    let route = Rules { set: &set, remove: &["x-two"] };
    let listener_set = [("x-one", "other"), ("x-two", "other"), ("x-four", "g")];
    let listener = Rules { set: &listener_set, remove: &["server"] };
    let out = response_with(head, Framing::None, Persistence::Persistent, &[route, listener]);
    let expected = "HTTP/1.1 200 OK\r\nDate: a\r\nX-One: new\r\nX-Three: f\r\nX-Four: g\r\n\r\n";
    assert_eq!(out, expected);
}

#[test]
fn rules_change_neither_framing_nor_routing() {
    let set = [
        ("content-length", "1"),
        ("transfer-encoding", "chunked"),
        ("connection", "close"),
        ("host", "other"),
        ("te", "trailers"),
    ];
    let names = set.map(|(name, _)| name);
    for rules in [Rules { set: &set, ..NONE }, Rules { remove: &names, ..NONE }] {
        let head = "HTTP/1.1 200 OK\r\nDate: a\r\nContent-Length: 5\r\n\r\n";
        let out = response_with(head, Framing::Length(5), Persistence::Persistent, &[rules]);
        assert_eq!(out, head);
        let out = request_with("", false, &[rules], |it| it.framing = Framing::Length(5));
        assert_eq!(out, format!("{OURS}Content-Length: 5\r\n"));
    }
}

#[test]
fn a_request_keeps_its_fields_in_their_order() {
    let fields = "accept: */*\r\nX-One: a\r\ncookie: b\r\nX-One: c\r\nsec-websocket-key: d\r\n";
    let expected = "Accept: */*\r\nX-One: a\r\nCookie: b\r\nX-One: c\r\nSec-WebSocket-Key: d\r\n";
    assert_eq!(request(fields), expected);
}

#[test]
fn a_request_loses_what_is_hop_by_hop_or_may_be_misread() {
    for fields in [
        "Connection: close, X-Hop\r\nX-Hop: a\r\n",
        "Keep-Alive: 5\r\nProxy-Connection: a\r\n",
        "TE: trailers\r\nTrailer: X\r\n",
        "Upgrade: h2c\r\nHTTP2-Settings: a\r\nConnection: Upgrade, HTTP2-Settings\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Content-Length: 5\r\n",
        "X_Forwarded_For: a\r\nContent_Length: 5\r\n_: b\r\n",
        "Proxy: http://a\r\n",
        "Expect: 100-continue\r\n",
    ] {
        assert_eq!(request(fields), "", "{fields}");
    }
}

#[test]
fn connection_does_not_remove_what_the_backend_relies_on() {
    let fields = "Connection: close, cookie, host, x-forwarded-for, X-Forwarded-Proto\r\n\
                  Cookie: a\r\n";
    assert_eq!(request(fields), "Cookie: a\r\n");
    let out =
        request_with("X-Forwarded-For: b\r\nConnection: x-forwarded-for\r\n", true, &[], |_| ());
    assert!(out.starts_with("X-Forwarded-For: b, 192.0.2.1\r\n"), "{out}");
}

#[test]
fn the_framing_of_a_request_is_written_once() {
    for (fields, framing, expected) in [
        ("", Framing::None, ""),
        ("Content-Length: 5\r\n", Framing::Length(5), "Content-Length: 5\r\n"),
        ("", Framing::Length(0), "Content-Length: 0\r\n"),
        ("Content-Length: 5\r\n", Framing::Chunked, "Transfer-Encoding: chunked\r\n"),
        ("Transfer-Encoding: chunked\r\n", Framing::Chunked, "Transfer-Encoding: chunked\r\n"),
    ] {
        let out = request_with(fields, false, &[], |it| it.framing = framing);
        assert_eq!(out, format!("{OURS}{expected}"), "{fields}");
    }
}

#[test]
fn expect_goes_on_if_it_is_asked_for() {
    let out = request_with("Expect: 100-continue\r\n", false, &[], |it| it.keeps_expect = true);
    assert_eq!(out, format!("Expect: 100-continue\r\n{OURS}"));
}

const FORGED: &str = "X-Forwarded-For: a\r\nx-forwarded-for: b, c\r\nX-Forwarded-For:\r\n\
                      X-Forwarded-Proto: ftp\r\nX-Forwarded-Host: d\r\nX-Request-Id: e\r\n\
                      X-Forwarded-Port: 1\r\nX-Real-IP: f\r\nForwarded: for=g\r\nFrom: h\r\n";

#[test]
fn a_client_that_is_not_trusted_says_nothing_about_itself() {
    assert_eq!(request(FORGED), "From: h\r\n");
}

#[test]
fn a_trusted_proxy_says_who_the_client_is() {
    let expected = "X-Forwarded-Proto: ftp\r\nX-Forwarded-Host: d\r\nX-Request-Id: e\r\n\
                    X-Forwarded-Port: 1\r\nX-Real-IP: f\r\nForwarded: for=g\r\nFrom: h\r\n\
                    X-Forwarded-For: a, b, c, 192.0.2.1\r\n";
    assert_eq!(request_with(FORGED, true, &[], |_| ()), expected);
    assert_eq!(request_with("", true, &[], |_| ()), OURS);
    let out = request_with("X-Forwarded-Proto: http\r\n", true, &[], |_| ());
    assert_eq!(out.matches("X-Forwarded-Proto").count(), 1);
}

#[test]
fn rules_also_apply_to_the_fields_about_the_client() {
    let set = [("x-forwarded-proto", "http"), ("x-forwarded-for", "unknown")];
    let rules = Rules { set: &set, remove: &["x-request-id", "X-FORWARDED-HOST"] };
    for is_trusted in [false, true] {
        let out = request_with("X-Forwarded-For: a\r\n", is_trusted, &[rules], |_| ());
        assert_eq!(out, "X-Forwarded-Proto: http\r\nX-Forwarded-For: unknown\r\n");
    }
}

#[test]
fn a_request_without_a_host_names_none() {
    let out = request_with("", false, &[], |it| it.client.host = b"");
    assert!(!out.contains("X-Forwarded-Host"), "{out}");
}

#[test]
fn a_client_without_an_address_has_none() {
    let out = request_with("X-Forwarded-For: a\r\n", false, &[], |it| it.client.address = "");
    assert_eq!(out, OURS.split_once("\r\n").expect("several fields").1);
}

/// Fields that matter, in several spellings, and some that do not.
fn fields() -> impl Strategy<Value = String> {
    let name = "[Cc]onnection|TE|[Tt]railer|[Uu]pgrade|[Kk]eep-[Aa]live|[Xx]-[a-c]|\
                [Xx]-Forwarded-(For|Proto|Host|a)|X_b|[Cc]ookie|Proxy|[Dd]ate|Forwarded";
    let value = "close|keep-alive|x-[a-c](, x-[a-c])?|host, date|upgrade|100-continue|[!-~]{0,9}";
    let field = (name, value).prop_map(|(name, value)| format!("{name}: {value}\r\n"));
    // Any other expectation is refused.
    let field = prop_oneof![12 => field, 1 => "[Ee]xpect: 100-continue\r\n"];
    proptest::collection::vec(field, 0..12).prop_map(|fields| fields.concat())
}

fn framing() -> impl Strategy<Value = Framing> {
    prop_oneof![Just(Framing::None), Just(Framing::Chunked), (0u64..1000).prop_map(Framing::Length)]
}

proptest! {
    #[test]
    fn what_is_written_for_a_backend_is_one_clear_request(
        fields in fields(), own_framing in framing(), framing in framing(), is_trusted: bool,
    ) {
        let own = match own_framing {
            Framing::None => String::new(),
            Framing::Length(length) => format!("content-length: {length}\r\n"),
            Framing::Chunked => "transfer-encoding: chunked\r\n".to_owned(),
        };
        let out = request_with(&(fields + &own), is_trusted, &[], |it| it.framing = framing);
        let head = format!("POST /c HTTP/1.1\r\nHost: backend\r\n{out}\r\n");
        let again = parse_request(head.as_bytes(), MAX_HEADERS);
        let again = again.map_err(|reject| TestCaseError::fail(format!("{reject:?}\n{head}")))?;
        let expected = match framing {
            Framing::None => Body::NONE,
            Framing::Length(length) => Body::Length(length),
            Framing::Chunked => Body::CHUNKED,
        };
        prop_assert_eq!((again.host, again.path, again.body), ("backend", "/c", expected));
        prop_assert!(again.is_persistent && !again.is_upgrade);
        prop_assert!(Fields::of(head.as_bytes()).all(|(name, _)| !name.contains(&b'_')));
        let count = |lower: &str| {
            Fields::of(head.as_bytes()).filter(|(name, _)| is(name, lower)).count()
        };
        prop_assert_eq!((count("x-forwarded-for"), count("connection")), (1, 0));
    }

    #[test]
    fn what_is_written_for_a_client_is_one_clear_response(
        fields in fields(), own_framing in framing(), framing in framing(), close: bool,
    ) {
        let own = match own_framing {
            Framing::None => String::new(),
            Framing::Length(length) => format!("content-length: {length}\r\n"),
            Framing::Chunked => "transfer-encoding: chunked\r\n".to_owned(),
        };
        let head = format!("HTTP/1.1 200 OK\r\n{fields}{own}\r\n");
        prop_assert!(parse_response(head.as_bytes(), RequestKind::Other).is_some());
        let persistence = if close { Persistence::Close } else { Persistence::Persistent };
        let out = response_with(&head, framing, persistence, &[]);
        let again = parse_response(out.as_bytes(), RequestKind::Other);
        let again = again.ok_or_else(|| TestCaseError::fail(out.clone()))?;
        let expected = match framing {
            Framing::None => Body::UntilClose,
            Framing::Length(length) => Body::Length(length),
            Framing::Chunked => Body::CHUNKED,
        };
        prop_assert_eq!(again.body, expected);
        prop_assert_eq!(again.is_persistent, !close && framing != Framing::None);
        // Written once more it stays the same, because nothing is left to be changed.
        prop_assert_eq!(response_with(&out, framing, persistence, &[]), out);
    }
}
