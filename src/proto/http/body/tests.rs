//! Where bodies end, in one piece and in several.

use super::*;
use proptest::prelude::*;

#[test]
fn a_length_counts_down() {
    let mut body = Body::Length(5);
    assert_eq!(body.follow(b"abc"), BodyEnd::NotYet);
    assert_eq!(body.follow(b"defg"), BodyEnd::At(2));
    assert!(body.is_done());
}

#[test]
fn chunks_end_behind_the_trailers() {
    let bytes = b"4;x=y\r\nWiki\r\n0\r\nExpires: never\r\n\r\nGET";
    assert_eq!(Body::CHUNKED.clone().follow(bytes), BodyEnd::At(bytes.len() - 3));
    assert_eq!(Body::CHUNKED.clone().follow(b"0\r\n\r\n"), BodyEnd::At(5));
}

#[test]
fn malformed_chunks_are_refused() {
    for bytes in [
        &b"\r\n"[..],
        b"x\r\n",
        b"4\nWiki",
        b"4\r\nWikiX",
        b"4\r\nWiki\n",
        b"0\r\n\n",
        b"-1\r\n",
        b"0x4\r\n",
        b"4 \r\n",
        b"fffffffffffffffff\r\n",
        b"0\r\nA: b\n\r\n",
        b"4;a\nWiki",
    ] {
        assert_eq!(Body::CHUNKED.clone().follow(bytes), BodyEnd::Malformed, "{bytes:?}");
    }
}

proptest! {
    #[test]
    fn cuts_do_not_change_where_chunks_end(
        bytes in "([0-3]\r\n|[a-f]|\r\n|\n|;|: ){0,30}", cut in 0usize..90,
    ) {
        let bytes = bytes.as_bytes();
        let cut = cut.min(bytes.len());
        let whole = Body::CHUNKED.clone().follow(bytes);
        let mut pieces = Body::CHUNKED;
        let result = match pieces.follow(&bytes[..cut]) {
            BodyEnd::NotYet => match pieces.follow(&bytes[cut..]) {
                BodyEnd::At(end) => BodyEnd::At(cut + end),
                other => other,
            },
            other => other,
        };
        prop_assert_eq!(result, whole);
    }
}
