//! Paths as routing sees them: when two are the same, and which have dot segments.
//!
//! The same path has many spellings: `/%70rivate` is `/private` (RFC 3986 section 6.2.2). Servers
//! decode it before they look up the resource, so that routing must take it for the same path:
//! otherwise a client could avoid a route by its spelling. An encoded slash stays another byte than
//! a slash, because it does not end a segment.
//!
//! Dot segments (RFC 3986 section 3.3) are `.` and `..`. A path with them can match one route here
//! and become another path when the server behind it resolves them. Servers differ in what they
//! treat as a dot segment, so every interpretation in use counts as one here:
//!
//! | interpretation | used by |
//! | --- | --- |
//! | `%2e` is a dot | every server (RFC 3986 section 6.2.2.2) |
//! | `%2f` ends a segment | nginx |
//! | `\` and `%5c` end a segment | IIS, and parsers of the WHATWG URL standard |
//! | `;` ends the name of a segment | Java servlet containers |
//!
//! The path is decoded once. `%252e` is not a dot: a server that decodes twice is at fault itself.

/// Returns true if both are the same path, whatever their spellings.
pub fn is_same_path(one: &str, other: &str) -> bool {
    one == other || match_prefix(one, other).is_some_and(str::is_empty)
}

/// Returns what follows the prefix in the path, as it was sent. `None` if the path does not begin
/// with the prefix, in any spelling.
pub fn match_prefix<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    if let Some(rest) = path.strip_prefix(prefix) {
        return Some(rest);
    }
    // Without an encoding there is one spelling only.
    if !path.contains('%') && !prefix.contains('%') {
        return None;
    }
    let (mut rest, mut prefix) = (path.as_bytes(), prefix.as_bytes());
    while let Some((wanted, behind)) = unit(prefix) {
        let (found, after) = unit(rest)?;
        if found != wanted {
            return None;
        }
        (rest, prefix) = (after, behind);
    }
    // `get`, because an encoded prefix may end within a character.
    path.get(path.len() - rest.len()..)
}

/// The first byte, decoded, and the bytes after it. An encoded slash is told from a slash by the
/// flag.
fn unit(bytes: &[u8]) -> Option<((u8, bool), &[u8])> {
    let (byte, rest) = decode_one(bytes)?;
    Some(((byte, byte == b'/' && bytes[0] == b'%'), rest))
}

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
    fn a_prefix_is_found_in_every_spelling() {
        for (path, prefix, rest) in [
            ("/private/a", "/private/", Some("a")),
            ("/%70rivate/a%20b", "/private/", Some("a%20b")),
            ("/priv%61te", "/private", Some("")),
            ("/a%21b/%2e", "/a!b/", Some("%2e")),
            ("/%7euser/x", "/~user/", Some("x")),
            ("/~user/x", "/%7Euser/", Some("x")),
            ("/%7euser/x", "/%7Euser/", Some("x")),
            ("/a%2fb", "/a%2Fb", Some("")),
            ("/100%25", "/100%25", Some("")),
            ("/%c3%A4/x", "/%C3%a4/", Some("x")),
            ("/%c3%A4/x", "/\u{e4}/", Some("x")),
            ("/private%2fa", "/private/", None),
            ("/%2570rivate/a", "/private/", None),
            ("/%7rivate/", "/private/", None),
            ("/%70rivat", "/private", None),
            ("/a%", "/a%", Some("")),
            ("", "/", None),
            ("/x", "", Some("/x")),
        ] {
            assert_eq!(match_prefix(path, prefix), rest, "{path} {prefix}");
        }
        assert!(is_same_path("/%61", "/a") && !is_same_path("/%61b", "/a"));
    }

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
        fn every_spelling_of_a_path_is_the_same(
            path in "/[ -.0-~]{0,12}",
            mask in any::<u16>(),
            rest in "/[a-z]{0,3}",
        ) {
            let spell = |(index, byte): (usize, u8)| match mask >> (index % 16) & 1 {
                1 if index > 0 => format!("%{byte:02x}"),
                _ if byte == b'%' => "%25".to_owned(),
                _ => (byte as char).to_string(),
            };
            let spelt: String = path.bytes().enumerate().map(spell).collect();
            let plain = path.replace('%', "%25");
            prop_assert!(is_same_path(&spelt, &plain));
            let whole = spelt + &rest;
            prop_assert_eq!(match_prefix(&whole, &plain), Some(&*rest));
        }

        #[test]
        fn any_text_is_judged(path in "\\PC{0,40}") {
            prop_assert_eq!(has_dot_segment(&path), in_two_steps(&path));
        }
    }
}
