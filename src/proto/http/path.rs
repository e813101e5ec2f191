//! Dot segments in a path (RFC 3986 section 3.3): `.` and `..`. A server may resolve them before it
//! looks up the resource.
//!
//! Routing compares paths as they were sent. A path with dot segments can therefore match one route
//! here and become another path when the server behind it resolves them. Servers differ in what
//! they treat as a dot segment, so every interpretation in use counts as one here:
//!
//! | interpretation | used by |
//! | --- | --- |
//! | `%2e` is a dot | every server (RFC 3986 section 6.2.2.2) |
//! | `%2f` ends a segment | nginx |
//! | `\` and `%5c` end a segment | IIS, and parsers of the WHATWG URL standard |
//! | `;` ends the name of a segment | Java servlet containers |
//!
//! The path is decoded once. `%252e` is not a dot: a server that decodes twice is at fault itself.

/// Returns true when a segment of the path is a dot segment for some server.
pub fn has_dot_segment(path: &str) -> bool {
    let mut rest = path.as_bytes();
    let mut segment = Segment::Dots(0);
    while let Some((byte, behind)) = decode_one(rest) {
        segment = match (segment, byte) {
            (Segment::Dots(1 | 2), b'/' | b'\\' | b';') => return true,
            (_, b'/' | b'\\') => Segment::Dots(0),
            (Segment::Dots(dots @ 0..=1), b'.') => Segment::Dots(dots + 1),
            _ => Segment::Other,
        };
        rest = behind;
    }
    matches!(segment, Segment::Dots(1 | 2))
}

/// What the bytes of the current segment are so far.
#[derive(Clone, Copy)]
enum Segment {
    /// This number of dots, at most 2, and nothing else.
    Dots(u8),
    /// Anything else.
    Other,
}

/// The first byte, decoded if it is a valid percent-encoding, and the bytes after it.
fn decode_one(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let hex = |digit: u8| (digit as char).to_digit(16);
    if let [b'%', high, low, rest @ ..] = bytes
        && let (Some(high), Some(low)) = (hex(*high), hex(*low))
    {
        // Two hexadecimal digits fit in a byte.
        return Some(((high * 16 + low) as u8, rest));
    }
    bytes.split_first().map(|(&byte, rest)| (byte, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn dot_segments_are_found_in_every_spelling() {
        for path in [
            "/.",
            "/..",
            "/./",
            "/../",
            "/a/../b",
            "/a/.",
            "/a/..",
            "/a/./b",
            "//..//",
            "/.%2e/",
            "/%2E%2e",
            "/%2e./x",
            "/a/%2E",
            "/a/..%2fb",
            "/a%2f..%2Fb",
            "/a\\..\\b",
            "/..%5cb",
            "/a%5C%2e%2e",
            "/..;/b",
            "/..;x=y",
            "/.;",
            "/a/..%3bx/b",
            "..",
            ".",
        ] {
            assert!(has_dot_segment(path), "{path}");
        }
    }

    #[test]
    fn dots_in_other_segments_are_none() {
        for path in [
            "",
            "/",
            "*",
            "/a",
            "/...",
            "/.../a",
            "/.a",
            "/a.",
            "/a../b",
            "/..a/b",
            "/%2e%2e%2e",
            "/%2e%2ea",
            "/%252e%252e/",
            "/.%",
            "/..%2",
            "/..%zz/",
            "/..%00/",
            "/;../a",
            "/a;/..b",
            "/a%2fb",
            "/.well-known/x",
        ] {
            assert!(!has_dot_segment(path), "{path}");
        }
    }

    /// The reference implementation: it decodes the whole path first and then looks at its
    /// segments. It is slower but evidently correct.
    fn in_two_steps(path: &str) -> bool {
        let mut decoded = String::new();
        let mut rest = path.as_bytes();
        while let Some((byte, behind)) = decode_one(rest) {
            decoded.push(byte as char);
            rest = behind;
        }
        let names = decoded.split(['/', '\\']).map(|segment| segment.split(';').next());
        names.flatten().any(|name| name == "." || name == "..")
    }

    proptest! {
        #[test]
        fn one_pass_finds_what_two_steps_find(
            path in "(/|\\.|%2e|%2E|%2f|\\\\|%5c|;|%3b|%|2|e|a|%25){0,12}",
        ) {
            prop_assert_eq!(has_dot_segment(&path), in_two_steps(&path));
        }

        #[test]
        fn any_text_is_judged(path in "\\PC{0,40}") {
            prop_assert_eq!(has_dot_segment(&path), in_two_steps(&path));
        }
    }
}
