//! Heads that ringgate makes, and requests that get no content.

use super::*;
use proptest::prelude::*;

#[test]
fn a_generated_response_has_a_head() {
    let mut out = Vec::new();
    begin(&mut out, 301, Some(b"Thu, 01 Jan 1970 00:00:00 GMT"));
    finish(&mut out, Some(0), Persistence::Close);
    let expected = "HTTP/1.1 301 Moved Permanently\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\
                    Content-Length: 0\r\nConnection: close\r\n\r\n";
    assert_eq!(String::from_utf8(out).unwrap(), expected);
}

#[test]
fn what_begins_with_head_gets_no_content() {
    for bytes in [
        &b"HEAD / HTTP/1.1\r\n\r\n"[..],
        b"HEAD /",
        b"HEAD ",
        b"HEAD",
        b"HEAD\t/ HTTP/1.1",
        b"HEAD\r\n",
        b"\r\nHEAD / HTTP/1.1",
        b"\nHEAD / HTTP/1.1",
    ] {
        assert_eq!(Content::for_rejected(bytes), Content::Announced, "{bytes:?}");
    }
    for bytes in [
        &b""[..],
        b"\r\n",
        b"HEA",
        b"HEADER / HTTP/1.1",
        b"HEAD-IT / HTTP/1.1",
        b"head / HTTP/1.1",
        b" HEAD / HTTP/1.1",
        b"GET /HEAD HTTP/1.1",
    ] {
        assert_eq!(Content::for_rejected(bytes), Content::Sent, "{bytes:?}");
    }
    assert_eq!(Content::for_method("HEAD"), Content::Announced);
    assert_eq!(Content::for_method("GET"), Content::Sent);
}

proptest! {
    #[test]
    fn a_head_that_parses_gets_the_same_from_both(
        start in "(\r\n)?", method in "HEAD|HEAD[A-Z]|[A-Z]{1,5}", rest in "[ /a]{0,9}",
    ) {
        let bytes = format!("{start}{method} {rest}");
        let expected = Content::for_method(&method);
        prop_assert_eq!(Content::for_rejected(bytes.as_bytes()), expected);
    }
}
