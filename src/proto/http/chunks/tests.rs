//! Chunked bodies in one piece and in several, what is made of them, and those that are refused.

use super::super::{Body, BodyEnd};
use super::*;
use proptest::prelude::*;

/// What a codec has made of its inputs.
#[derive(Debug, PartialEq, Eq)]
struct Coded {
    output: Vec<u8>,
    state: State,
    /// Bytes of the inputs before the end of the body.
    used: usize,
}

/// Codes each piece in a buffer of its own, with no more headroom than the codec asks for.
fn code<'a>(codec: &mut dyn Codec, pieces: impl IntoIterator<Item = &'a [u8]>) -> Coded {
    let mut coded = Coded { output: Vec::new(), state: State::Open, used: 0 };
    for piece in pieces {
        let headroom = codec.headroom(piece.len());
        let mut buffer = [&vec![b'#'; headroom], piece, b"behind"].concat();
        let end = headroom + piece.len();
        let output = codec.code(&mut buffer, headroom..end);
        assert!(output.end <= end && buffer[end..] == *b"behind");
        let unused = codec.unused();
        // They must be where they were, because the caller goes on with them.
        assert!(output.end <= end - unused);
        assert_eq!(buffer[end - unused..end], piece[piece.len() - unused..]);
        coded.output.extend_from_slice(&buffer[output]);
        coded.used += piece.len() - unused;
    }
    coded.state = codec.state();
    coded
}

fn rechunk(bytes: &[u8]) -> Coded {
    code(&mut Rechunk::default(), [bytes])
}

fn dechunk(bytes: &[u8]) -> Coded {
    code(&mut Dechunk::default(), [bytes])
}

fn coded(output: &[u8], state: State, used: usize) -> Coded {
    Coded { output: output.to_vec(), state, used }
}

#[test]
fn a_body_is_passed_on_in_its_canonical_form() {
    for (bytes, canonical) in [
        ("0\r\n\r\n", "0\r\n\r\n"),
        ("000;a=b\r\nExpires: never\r\nX: y\r\n\r\n", "0\r\n\r\n"),
        ("4;x=y\r\nWiki\r\n0\r\n\r\n", "4\r\nWiki\r\n0\r\n\r\n"),
        ("00000000000000B\r\nhello world\r\n0\r\n\r\n", "b\r\nhello world\r\n0\r\n\r\n"),
        ("1;\r\na\r\n1\r\nb\r\n0;last\r\n\r\n", "1\r\na\r\n1\r\nb\r\n0\r\n\r\n"),
    ] {
        let expected = coded(canonical.as_bytes(), State::Ended, bytes.len());
        assert_eq!(rechunk(bytes.as_bytes()), expected, "{bytes}");
    }
}

#[test]
fn the_payload_is_taken_out() {
    let bytes = b"4;x=y\r\nWiki\r\n00005\r\npedia\r\n0\r\nA: b\r\n\r\n";
    assert_eq!(dechunk(bytes), coded(b"Wikipedia", State::Ended, bytes.len()));
    assert_eq!(dechunk(b"0\r\n\r\n"), coded(b"", State::Ended, 5));
}

#[test]
fn bytes_behind_the_end_are_left_alone() {
    let bytes = b"1\r\na\r\n0\r\n\r\nGET / HTTP/1.1\r\n";
    assert_eq!(rechunk(bytes), coded(b"1\r\na\r\n0\r\n\r\n", State::Ended, 11));
    assert_eq!(dechunk(bytes), coded(b"a", State::Ended, 11));
    let mut codec = Dechunk::default();
    assert_eq!(code(&mut codec, [&bytes[..], b"more"]), coded(b"a", State::Ended, 11));
    assert_eq!(codec.unused(), 4);
}

#[test]
fn a_line_that_arrives_in_pieces_is_written_when_it_is_complete() {
    let mut codec = Rechunk::default();
    let mut next = |piece: &[u8]| String::from_utf8(code(&mut codec, [piece]).output).unwrap();
    assert_eq!(next(b"0012"), "");
    assert_eq!(next(b"3;name=value"), "");
    assert_eq!(next(b"\r"), "");
    assert_eq!(next(b"\n"), "123\r\n");
    assert_eq!(next(&[b'a'; 0x123]), "a".repeat(0x123));
    assert_eq!(next(b"\r"), "");
    assert_eq!(next(b"\n0\r\nA: b\r"), "\r\n");
    assert_eq!(next(b"\n\r"), "");
    assert_eq!(next(b"\n"), "0\r\n\r\n");
}

#[test]
fn a_body_that_is_malformed_is_passed_on_up_to_there() {
    for (bytes, passed) in [
        ("\r\n", ""),
        ("x\r\n", ""),
        (";\r\n", ""),
        (" 4\r\n", ""),
        ("4 \r\n", ""),
        ("4\t;a\r\n", ""),
        ("+4\r\n", ""),
        ("-1\r\n", ""),
        ("0x4\r\n", ""),
        ("4\nWiki", ""),
        ("4\r\r\nWiki", ""),
        ("4;a\nWiki", ""),
        ("4;a\r;b\r\nWiki", ""),
        ("fffffffffffffffff\r\n", ""),
        ("0000000000000004\r\nWiki", ""),
        ("4\r\nWikiX", "4\r\nWiki"),
        ("4\r\nWiki\n", "4\r\nWiki"),
        ("4\r\nWiki\r0\r\n", "4\r\nWiki"),
        ("4\r\nWiki\r\n\r\n", "4\r\nWiki\r\n"),
        ("0\n\r\n", ""),
        ("0\r\n\n", ""),
        ("0\r\nA: b\n\r\n", ""),
        ("0\r\nA: b\r\r\n\r\n", ""),
        ("1\r\na\r\n0\r\n\rGET", "1\r\na\r\n"),
    ] {
        let expected = coded(passed.as_bytes(), State::Broken, bytes.len());
        assert_eq!(rechunk(bytes.as_bytes()), expected, "{bytes:?}");
        assert_eq!(dechunk(bytes.as_bytes()).state, State::Broken, "{bytes:?}");
        assert_eq!(Body::CHUNKED.clone().follow(bytes.as_bytes()), BodyEnd::Malformed, "{bytes:?}");
    }
    assert!(!code_is_too_long(&mut Rechunk::default(), b"x"));
}

fn code_is_too_long(codec: &mut dyn Codec, bytes: &[u8]) -> bool {
    code(codec, [bytes]);
    codec.is_too_long()
}

#[test]
fn extensions_and_trailers_are_bounded() {
    let extension = |length| format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(length));
    let trailers =
        |length| format!("0\r\n{}A: {}\r\n\r\n", "B: c\r\n".repeat(100), "x".repeat(length));
    for (fits, exceeds) in [
        (extension(4095), extension(4096)),
        (trailers(16 * 1024 - 600 - 6), trailers(16 * 1024 - 600 - 5)),
    ] {
        assert_eq!(dechunk(fits.as_bytes()).state, State::Ended);
        assert_eq!(dechunk(exceeds.as_bytes()).state, State::Broken);
    }
    // Each chunk may have an extension.
    let many = extension(4000).replace("0\r\n\r\n", "") + &extension(4000);
    assert_eq!(rechunk(many.as_bytes()).output, b"1\r\na\r\n1\r\na\r\n0\r\n\r\n");
}

#[test]
fn payload_beyond_the_limit_is_told_from_what_is_malformed() {
    let bytes = b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    for (limit, payload, chunks, state) in [
        (5, &b"abcde"[..], &bytes[..], State::Ended),
        // The second chunk is refused by its size.
        (4, b"abc", b"3\r\nabc\r\n", State::Broken),
        (2, b"", b"", State::Broken),
    ] {
        let is_broken = state == State::Broken;
        let mut codec = Dechunk::with_limit(limit);
        assert_eq!(code(&mut codec, [&bytes[..]]), coded(payload, state, bytes.len()));
        assert_eq!(codec.is_too_long(), is_broken);
        let mut codec = Rechunk::with_limit(limit);
        assert_eq!(code(&mut codec, [&bytes[..]]), coded(chunks, state, bytes.len()));
        assert_eq!(codec.is_too_long(), is_broken);
    }
    let mut codec = Enchunk::with_limit(4);
    let made = code(&mut codec, [&b"abc"[..], b"de", b"f"]);
    assert_eq!(made, coded(b"3\r\nabc\r\n", State::Broken, 6));
    assert!(codec.is_too_long() && codec.finish().is_empty() && codec.state() == State::Broken);
}

#[test]
fn a_size_that_overflows_the_count_is_too_long() {
    let mut codec = Dechunk::with_limit(10);
    assert!(code_is_too_long(&mut codec, b"fffffffffffffff\r\n"));
}

#[test]
fn a_payload_becomes_chunks() {
    let mut codec = Enchunk::default();
    let pieces = [&b"abc"[..], b"", &[b'x'; 16]];
    let made = code(&mut codec, pieces);
    let expected = [b"3\r\nabc\r\n10\r\n", &[b'x'; 16][..], b"\r\n"].concat();
    assert_eq!((made.output, made.state), (expected, State::Open));
    assert_eq!((codec.finish(), codec.state()), (&b"0\r\n\r\n"[..], State::Ended));
    assert!(codec.finish().is_empty());

    let mut empty = Enchunk::default();
    assert_eq!((empty.finish(), empty.state()), (&b"0\r\n\r\n"[..], State::Ended));
}

/// Cuts bytes into pieces of these lengths and the rest.
fn cut<'a>(mut bytes: &'a [u8], lengths: &[usize]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    for &length in lengths {
        let (piece, rest) = bytes.split_at(length.min(bytes.len()));
        pieces.push(piece);
        bytes = rest;
    }
    pieces.push(bytes);
    pieces
}

/// A chunk: how its size is spelt, its extension, and its data.
fn chunk() -> impl Strategy<Value = (String, String, Vec<u8>)> {
    let data = proptest::collection::vec(any::<u8>(), 1..300);
    (0usize..8, any::<bool>(), "(;[ -~]{0,9})?", data).prop_map(
        |(zeros, is_upper, extension, data)| {
            let digits = format!("{:x}", data.len());
            let digits = if is_upper { digits.to_uppercase() } else { digits };
            ("0".repeat(zeros) + &digits, extension, data)
        },
    )
}

proptest! {
    #[test]
    fn every_spelling_of_a_body_has_one_canonical_form(
        chunks in proptest::collection::vec(chunk(), 0..6),
        last in "0{1,15}(;[ -~]{0,9})?\r\n([A-Za-z]{1,9}: [ -~]{0,20}\r\n){0,3}\r\n",
        behind in "[0-9A-Z\r\n]{0,20}",
        cuts in proptest::collection::vec(0usize..40, 0..40),
    ) {
        let (mut bytes, mut canonical, mut payload) = (Vec::new(), Vec::new(), Vec::new());
        for (size, extension, data) in &chunks {
            bytes.extend([size.as_bytes(), extension.as_bytes(), b"\r\n", data, b"\r\n"].concat());
            let size = format!("{:x}\r\n", data.len());
            canonical.extend([size.as_bytes(), data, b"\r\n"].concat());
            payload.extend(data);
        }
        bytes.extend(last.as_bytes());
        canonical.extend(b"0\r\n\r\n");
        let length = bytes.len();
        bytes.extend(behind.as_bytes());

        prop_assert_eq!(Body::CHUNKED.clone().follow(&bytes), BodyEnd::At(length));
        let rechunked = code(&mut Rechunk::default(), cut(&bytes, &cuts));
        prop_assert_eq!(&rechunked, &coded(&canonical, State::Ended, length));
        let again = code(&mut Rechunk::default(), cut(&canonical, &cuts));
        prop_assert_eq!(again, coded(&canonical, State::Ended, canonical.len()));
        let dechunked = code(&mut Dechunk::default(), cut(&bytes, &cuts));
        prop_assert_eq!(dechunked, coded(&payload, State::Ended, length));
    }

    #[test]
    fn what_enchunk_makes_dechunk_reads(
        payload in proptest::collection::vec(any::<u8>(), 0..5000),
        pieces in proptest::collection::vec(0usize..700, 0..10),
        cuts in proptest::collection::vec(0usize..400, 0..30),
    ) {
        let mut codec = Enchunk::default();
        let mut bytes = code(&mut codec, cut(&payload, &pieces)).output;
        bytes.extend(codec.finish());
        let read = code(&mut Dechunk::default(), cut(&bytes, &cuts));
        prop_assert_eq!(read, coded(&payload, State::Ended, bytes.len()));
        // It is canonical already.
        prop_assert_eq!(rechunk(&bytes).output, bytes);
    }

    #[test]
    fn cuts_change_nothing_and_the_byte_that_breaks_a_body_has_no_output(
        text in "([0-3]\r\n|0[a-f]|\r\n|\n|;|: |0|\r){0,30}",
        cuts in proptest::collection::vec(0usize..9, 0..20),
    ) {
        let bytes = text.as_bytes();
        for framed in [false, true] {
            let codec = || -> Box<dyn Codec> {
                if framed { Box::new(Rechunk::default()) } else { Box::new(Dechunk::default()) }
            };
            let whole = code(&mut *codec(), [bytes]);
            prop_assert_eq!(&code(&mut *codec(), cut(bytes, &cuts)), &whole);

            let (mut single, mut output) = (codec(), Vec::new());
            for byte in bytes.chunks(1) {
                let was_open = single.state() == State::Open;
                let step = code(&mut *single, [byte]);
                let may_write = was_open && step.state != State::Broken;
                prop_assert!(may_write || step.output.is_empty());
                output.extend(step.output);
            }
            prop_assert_eq!((output, single.state()), (whole.output, whole.state));
            let end = match Body::CHUNKED.clone().follow(bytes) {
                BodyEnd::NotYet => (State::Open, bytes.len()),
                BodyEnd::At(end) => (State::Ended, end),
                BodyEnd::Malformed => (State::Broken, bytes.len()),
            };
            prop_assert_eq!((whole.state, whole.used), end);
        }
    }
}
