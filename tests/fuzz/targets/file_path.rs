//! The path of a request as a path below a root: it never leads out of it, and means one thing.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringgate::proto::http::{FilePath, MAX_FILE_PATH, has_dot_segment};

/// All bytes but the slashes in percent-encoding.
fn encoded(path: &FilePath) -> String {
    let mut text = "/".to_owned();
    for &byte in path.as_bytes() {
        match byte {
            b'/' => text.push('/'),
            _ => text += &format!("%{byte:02X}"),
        }
    }
    // The root has no further slash.
    if path.is_directory() && !path.as_bytes().is_empty() {
        text.push('/');
    }
    text
}

/// The path decoded at once, if every `%` is followed by two digits.
fn decoded(path: &str) -> Option<Vec<u8>> {
    let mut parts = path.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let digits =
            part.get(..2).filter(|two| two.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    Some(bytes)
}

fn is_hidden(path: &FilePath) -> bool {
    let mut segments = path.as_bytes().split(|&byte| byte == b'/').enumerate();
    segments.any(|(at, name)| name.starts_with(b".") && (at > 0 || name != b".well-known"))
}

fuzz_target!(|data: &[u8]| {
    let Ok(path) = std::str::from_utf8(data) else { return };
    let path = &format!("/{path}");
    let (all, visible) = (FilePath::decode(path, true), FilePath::decode(path, false));

    // Without hidden files less is served, and nothing else.
    assert_eq!(visible, all.clone().filter(|path| !is_hidden(path)));
    assert!(visible.is_none() || !has_dot_segment(path), "another server reads it differently");

    let Some(found) = all else {
        // What is refused has a reason.
        let bytes = decoded(path);
        let lower = path.to_lowercase();
        let has_other_slash = ["%2f", "%5c", "\\"].iter().any(|slash| lower.contains(slash));
        let is_refused = bytes.is_none_or(|bytes| {
            let inner = bytes[1..].strip_suffix(b"/").unwrap_or(&bytes[1..]);
            let mut segments = inner.split(|&byte| byte == b'/');
            bytes.iter().any(u8::is_ascii_control)
                || inner.len() > MAX_FILE_PATH
                || segments.any(|name| matches!(name, b"" | b"." | b".."))
        });
        assert!(has_other_slash || is_refused, "{path:?}");
        return;
    };

    // It stays below the root.
    let bytes = found.as_bytes();
    assert!(bytes.len() <= MAX_FILE_PATH && !bytes.iter().any(u8::is_ascii_control));
    let mut segments = bytes.split(|&byte| byte == b'/');
    assert!(bytes.is_empty() || segments.all(|name| !matches!(name, b"" | b"." | b"..")));
    // It was decoded once: every other spelling of it means the same.
    assert_eq!(FilePath::decode(&encoded(&found), true), Some(found));
});
