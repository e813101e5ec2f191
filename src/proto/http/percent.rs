//! The path of a request as a path of a file below a root (RFC 3986 section 2.1).
//!
//! The path is decoded once, and the file system gets the result. A path that could lead out of the
//! root, or that another server reads differently, names no file at all:
//!
//! | refused | because |
//! | --- | --- |
//! | an invalid percent-encoding | servers differ in what they make of it |
//! | `%2f`, `\`, `%5c` | some servers end a segment there, others do not |
//! | NUL and other control characters, encoded or not | they end strings and spoil logs |
//! | the segments `.` and `..`, in any spelling | they lead elsewhere |
//! | empty segments | the same file would have many paths |
//! | segments that begin with a dot | `.git` and `.env` are not meant to be served |
//!
//! `.well-known` (RFC 8615) may be the first segment.

use std::fmt;

/// The longest path in bytes, decoded. Linux allows 4095 with the name of the root (PATH_MAX).
pub const MAX_FILE_PATH: usize = 3072;

/// A path below a root: no empty segment, no dot segment, no leading slash. It is empty for the
/// root itself.
#[derive(Clone, PartialEq, Eq)]
pub struct FilePath {
    bytes: Vec<u8>,
    is_directory: bool,
}

impl FilePath {
    /// Decodes the path of a request. `None` if it names no file that may be served.
    pub fn decode(path: &str, dot_files: bool) -> Option<FilePath> {
        let encoded = path.strip_prefix('/')?.as_bytes();
        let mut bytes = Vec::with_capacity(encoded.len());
        let mut rest = encoded.iter();
        while let Some(&byte) = rest.next() {
            let (decoded, is_encoded) = match byte {
                b'%' => (hex(*rest.next()?)? << 4 | hex(*rest.next()?)?, true),
                _ => (byte, false),
            };
            let is_slash = decoded == b'/' && is_encoded;
            if is_slash || decoded == b'\\' || decoded.is_ascii_control() {
                return None;
            }
            bytes.push(decoded);
        }
        FilePath::new(bytes, dot_files)
    }

    /// Takes a path of the configuration, which is not encoded. A slash at its start changes
    /// nothing. `None` if it has a segment that is empty or that is a dot segment.
    pub fn configured(path: &str) -> Option<FilePath> {
        FilePath::new(path.strip_prefix('/').unwrap_or(path).as_bytes().to_vec(), true)
    }

    fn new(mut bytes: Vec<u8>, dot_files: bool) -> Option<FilePath> {
        if bytes.is_empty() {
            return Some(FilePath { bytes, is_directory: true });
        }
        let is_directory = bytes.ends_with(b"/");
        if is_directory {
            bytes.pop();
        }
        let is_allowed = |(index, segment): (usize, &[u8])| match segment {
            b"" | b"." | b".." => false,
            b".well-known" if index == 0 => true,
            _ => dot_files || !segment.starts_with(b"."),
        };
        let may_be_served = bytes.len() <= MAX_FILE_PATH
            && bytes.split(|&byte| byte == b'/').enumerate().all(is_allowed);
        may_be_served.then_some(FilePath { bytes, is_directory })
    }

    /// The path; empty for the root.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns true if the path ends with a slash, so that it names a directory.
    pub fn is_directory(&self) -> bool {
        self.is_directory
    }

    /// The path of a file with this name in the directory.
    pub fn join(&self, name: &str) -> FilePath {
        let mut bytes = self.bytes.clone();
        if !bytes.is_empty() {
            bytes.push(b'/');
        }
        bytes.extend_from_slice(name.as_bytes());
        FilePath { bytes, is_directory: false }
    }
}

impl fmt::Debug for FilePath {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = if self.is_directory { "/" } else { "" };
        write!(out, "{}{end}", self.bytes.escape_ascii())
    }
}

fn hex(digit: u8) -> Option<u8> {
    // A digit is less than 16.
    (digit as char).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::http::has_dot_segment;
    use proptest::prelude::*;

    fn decoded(path: &str) -> Option<(Vec<u8>, bool)> {
        FilePath::decode(path, false).map(|path| (path.bytes, path.is_directory))
    }

    #[test]
    fn a_path_is_decoded_once() {
        let file = |path: &str| Some((path.as_bytes().to_vec(), false));
        let directory = |path: &str| Some((path.as_bytes().to_vec(), true));
        assert_eq!(decoded("/"), directory(""));
        assert_eq!(decoded("/a"), file("a"));
        assert_eq!(decoded("/a/b.txt"), file("a/b.txt"));
        assert_eq!(decoded("/a/"), directory("a"));
        assert_eq!(decoded("/a%20b+c"), file("a b+c"));
        assert_eq!(decoded("/%61"), file("a"));
        assert_eq!(decoded("/%C3%a4"), file("ä"));
        assert_eq!(decoded("/%ff"), Some((vec![0xff], false)));
        assert_eq!(decoded("/%252e%252e/%2561"), file("%2e%2e/%61"), "not twice");
        assert_eq!(decoded("/..a/a../..."), None, "a name that begins with a dot");
        assert_eq!(decoded("/a../b..c"), file("a../b..c"));
        assert_eq!(decoded("/.well-known/security.txt"), file(".well-known/security.txt"));
    }

    /// Each of these would be a way out of the root, or to a file that is not to be served, for
    /// some server.
    #[test]
    fn a_path_that_could_lead_elsewhere_names_no_file() {
        for path in [
            "",
            "*",
            "a",
            "//",
            "//a",
            "/a//b",
            "/a//",
            "/.",
            "/..",
            "/./a",
            "/a/.",
            "/a/..",
            "/../",
            "/a/../b",
            "/%2e",
            "/%2e%2e/a",
            "/.%2e/a",
            "/%2e./a",
            "/%2E%2E/a",
            "/a/%2e%2E",
            "/a%2fb",
            "/..%2fa",
            "/%2Fetc",
            "/a%2F..%2fb",
            "/a\\b",
            "/..\\a",
            "/%5c..%5c",
            "/a%5Cb",
            "/a%00",
            "/%00",
            "/a%00.txt",
            "/a%0a",
            "/a%0D%0Ab",
            "/%1f",
            "/%7f",
            "/%",
            "/%2",
            "/%zz",
            "/%2g",
            "/a%",
            "/%%32%65",
            "/%u002e",
            "/.git/config",
            "/.env",
            "/a/.htaccess",
            "/%2eenv",
            "/.well-known2",
            "/a/.well-known/b",
            "/.well-known/.git",
            "/.Well-Known/a",
        ] {
            assert_eq!(FilePath::decode(path, false), None, "{path}");
        }
        for path in ["/.", "/..", "/a/%2e%2e/b", "/a/%2E", "//", "/.a/../b"] {
            assert_eq!(FilePath::decode(path, true), None, "{path} with dot files");
        }
        assert_eq!(FilePath::decode("/.env", true).unwrap().as_bytes(), b".env");
    }

    #[test]
    fn a_long_path_names_no_file() {
        let path = |length: usize| FilePath::decode(&format!("/{}", "a".repeat(length)), false);
        assert!(path(MAX_FILE_PATH).is_some() && path(MAX_FILE_PATH + 1).is_none());
        let encoded = format!("/{}", "%61".repeat(MAX_FILE_PATH));
        assert!(FilePath::decode(&encoded, false).is_some(), "counted after decoding");
    }

    #[test]
    fn a_path_of_the_configuration_is_not_encoded() {
        let bytes = |path| FilePath::configured(path).map(|path| path.bytes);
        assert_eq!(bytes("/404.html"), Some(b"404.html".to_vec()));
        assert_eq!(bytes("a/%20"), Some(b"a/%20".to_vec()));
        assert_eq!(bytes("/.a"), Some(b".a".to_vec()));
        assert_eq!((bytes("../a"), bytes("/a/../b"), bytes("a//b")), (None, None, None));
    }

    #[test]
    fn a_name_is_joined_to_its_directory() {
        let joined = |path| FilePath::decode(path, false).unwrap().join("index.html").bytes;
        assert_eq!(joined("/"), b"index.html");
        assert_eq!(joined("/a/b/"), b"a/b/index.html");
    }

    /// The reference: all steps one after the other, each over the whole path.
    fn in_steps(path: &str) -> Option<Vec<u8>> {
        let path = path.strip_prefix('/')?;
        let lower = path.to_ascii_lowercase();
        if lower.contains("%2f") || lower.contains("%5c") || lower.contains('\\') {
            return None;
        }
        let mut parts = path.split('%');
        let mut bytes = parts.next()?.as_bytes().to_vec();
        for part in parts {
            let digits =
                part.get(..2).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            bytes.extend_from_slice(&part.as_bytes()[2..]);
        }
        let name = bytes.strip_suffix(b"/").unwrap_or(&bytes);
        let is_bad = |segment: &[u8]| segment.is_empty() || matches!(segment, b"." | b"..");
        let is_refused = !bytes.is_empty() && name.split(|&byte| byte == b'/').any(is_bad);
        let has_control = bytes.iter().any(|byte| *byte < b' ' || *byte == 0x7f);
        (!is_refused && !has_control).then(|| name.to_vec())
    }

    proptest! {
        #[test]
        fn one_pass_finds_what_many_steps_find(
            path in "(/|\\.|%2e|%2E|%2f|\\\\|%5c|%|2|e|a|%25|%00|%c3|%0a|ä){0,12}",
        ) {
            let path = format!("/{path}");
            let found = FilePath::decode(&path, true);
            prop_assert_eq!(found.map(|found| found.bytes), in_steps(&path));
        }

        #[test]
        fn no_path_that_is_taken_has_a_dot_segment_for_any_server(
            path in "(/|\\.|%2e|%2E|%2f|%5c|;|a|%25|%3b){0,12}",
        ) {
            let path = format!("/{path}");
            if let Some(found) = FilePath::decode(&path, false) {
                prop_assert!(!has_dot_segment(&path));
                prop_assert!(!found.bytes.starts_with(b"/") && !found.bytes.contains(&0));
            }
        }

        #[test]
        fn any_text_is_judged(path in "\\PC{0,40}") {
            let path = format!("/{path}");
            let found = FilePath::decode(&path, true);
            prop_assert_eq!(found.map(|found| found.bytes), in_steps(&path));
        }
    }
}
