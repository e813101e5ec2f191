//! Fields as they are iterated, hop by hop or not, and the spelling of their names.

use super::super::{MAX_HEADERS, parse_request};
use super::*;
use proptest::prelude::*;

fn list(head: &str) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    Fields::of(head.as_bytes()).map(|(name, value)| (text(name), text(value))).collect()
}

/// Whether a field is hop by hop in a message with these fields. `None` if it is refused.
fn is_hop_in(fields: &str, name: &str) -> Option<bool> {
    let head = format!("GET / HTTP/1.1\r\n{fields}\r\n");
    Hop::of(head.as_bytes()).map(|hop| hop.contains(name.as_bytes()))
}

fn is_hop(fields: &str, name: &str) -> bool {
    is_hop_in(fields, name).expect("few names")
}

fn title_case(name: &str) -> String {
    let mut out = b"before: ".to_vec();
    write_title_case(name.as_bytes(), &mut out);
    String::from_utf8(out).unwrap().split_off(8)
}

#[test]
fn fields_have_names_and_trimmed_values() {
    let head =
        "GET / HTTP/1.1\r\nHost: a\r\nX-Empty:\r\nx-white: \t \r\nY:  a: b \t\r\n\r\nZ: no\r\n";
    let expected = [("Host", "a"), ("X-Empty", ""), ("x-white", ""), ("Y", "a: b")];
    assert_eq!(list(head), expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    assert!(list("GET / HTTP/1.1\r\n\r\n").is_empty());
}

#[test]
fn some_names_are_hop_by_hop_in_every_message() {
    for name in [
        "Connection",
        "keep-alive",
        "Proxy-Connection",
        "TE",
        "Trailer",
        "transfer-encoding",
        "Upgrade",
    ] {
        assert!(is_hop("", name), "{name}");
    }
    for name in ["Host", "X-Private", "close", "", "Trailers", "Proxy-Authorization"] {
        assert!(!is_hop("Connection: close\r\n", name), "{name}");
    }
}

#[test]
fn connection_makes_other_names_hop_by_hop() {
    let fields = "Connection: close, X-One ,\r\nA: b\r\nCONNECTION:x-two,,X-Three\r\n";
    for name in ["x-one", "X-Two", "X-THREE"] {
        assert!(is_hop(fields, name), "{name}");
    }
    assert!(!is_hop(fields, "x-four"));
    assert!(!is_hop("X-Connection: x-one\r\n", "x-one"));
}

#[test]
fn connection_cannot_remove_what_others_rely_on() {
    for name in [
        "Host",
        "Expect",
        "Max-Forwards",
        "Content-Length",
        "content-type",
        "Cookie",
        "Set-Cookie",
        "Authorization",
        "WWW-Authenticate",
        "Cache-Control",
        "Date",
        "Via",
        "Forwarded",
        "X-Forwarded-For",
        "X-FORWARDED-ANYTHING",
        "X-Real-IP",
        "X-Request-Id",
        "Sec-WebSocket-Key",
    ] {
        assert!(!is_hop(&format!("Connection: keep-alive, {name}\r\n"), name), "{name}");
    }
}

#[test]
fn a_message_that_lists_too_many_names_is_refused() {
    let is_listed = |count: usize, name: &str| {
        let names: String = (0..count).map(|number| format!("x-{number}, ")).collect();
        is_hop_in(&format!("Connection: {names}close, te, host\r\n"), name)
    };
    assert_eq!(is_listed(16, "x-0"), Some(true));
    assert_eq!(is_listed(16, "X-15"), Some(true));
    assert_eq!(is_listed(16, "x-16"), Some(false));
    assert_eq!(is_listed(17, "x-0"), None);
}

#[test]
fn names_are_written_in_their_usual_form() {
    for (name, expected) in [
        ("x-forwarded-for", "X-Forwarded-For"),
        ("content-type", "Content-Type"),
        ("date", "Date"),
        ("a", "A"),
        ("-", "-"),
        ("x--y-", "X--Y-"),
        ("x_y", "X_y"),
        ("1-2", "1-2"),
        ("etag", "ETag"),
        ("Etag", "ETag"),
        ("www-authenticate", "WWW-Authenticate"),
        ("te", "TE"),
        ("dnt", "DNT"),
        ("sec-websocket-accept", "Sec-WebSocket-Accept"),
        ("sec-websocket-key", "Sec-WebSocket-Key"),
        ("x-xss-protection", "X-XSS-Protection"),
        ("content-md5", "Content-MD5"),
        // Its sender has chosen a form.
        ("X-AspNet-Version", "X-AspNet-Version"),
        (
            "x-a-name-that-is-longer-than-all-the-usual-ones",
            "X-A-Name-That-Is-Longer-Than-All-The-Usual-Ones",
        ),
    ] {
        assert_eq!(title_case(name), expected);
    }
}

proptest! {
    #[test]
    fn the_fields_are_those_that_the_parser_has_found(
        lines in "([A-Za-z-]{1,9}:[ \t]{0,2}[a-z:, \t\u{e9}]{0,12}\r\n){0,8}",
    ) {
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        prop_assume!(parse_request(head.as_bytes(), MAX_HEADERS).is_ok());
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut parsed = httparse::Request::new(&mut headers);
        prop_assert!(parsed.parse(head.as_bytes()).unwrap().is_complete());
        let expected: Vec<_> =
            parsed.headers.iter().map(|header| (header.name.as_bytes(), header.value)).collect();
        prop_assert_eq!(Fields::of(head.as_bytes()).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn names_keep_their_letters_and_their_form_is_final(name in "[!-~]{0,40}") {
        let once = title_case(&name);
        prop_assert!(once.eq_ignore_ascii_case(&name));
        prop_assert_eq!(title_case(&once), once);
    }
}
