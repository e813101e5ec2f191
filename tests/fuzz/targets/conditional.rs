//! The fields of a request that decide how a file is sent: conditions, one range, codings.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringgate::proto::http::{
    ByteRange, Coding, Codings, Conditions, Etag, Fields, Requested, Validators, Verdict,
    parse_request,
};

const START: &str = "GET / HTTP/1.1\r\nHost: a\r\n";
const OFFERED: [Coding; 3] = [Coding::Br, Coding::Zstd, Coding::Gzip];
/// Lines of one field that count.
const MAX_LINES: usize = 4;

/// A range by another way: its text in parts, with numbers that fit any digits.
fn reference(value: &[u8], length: u64) -> Requested {
    let number = |text: &str| match text.bytes().all(|byte| byte.is_ascii_digit()) {
        // Too many digits for the type are more than any length.
        true => Some(text.parse().unwrap_or(u128::MAX)),
        false => None,
    };
    let find = || {
        let text = std::str::from_utf8(value).ok()?;
        let (unit, set) = text.split_once('=')?;
        let set = set.trim_matches([' ', '\t', '\n', '\r', '\x0c']);
        let (first, last) = set.split_once('-').filter(|_| unit.eq_ignore_ascii_case("bytes"))?;
        let (length, none) = (u128::from(length), first.is_empty() && last.is_empty());
        let (first, last) = (Some(first).filter(|text| !text.is_empty()), last);
        let range = match (first, last) {
            // Nor has an empty file a part.
            _ if none || length == 0 => return None,
            (None, suffix) => {
                let suffix = number(suffix)?;
                length.saturating_sub(suffix)..length
            }
            (Some(first), "") => number(first)?..length,
            (Some(first), last) => {
                // Both are more than any length: which is larger is not looked at.
                let (first, last) = (number(first)?, number(last)?);
                let is_backward = first.min(u64::MAX.into()) > last.min(u64::MAX.into());
                if is_backward {
                    return None;
                }
                first..last.saturating_add(1).min(length)
            }
        };
        let part = ByteRange { start: range.start as u64, end: range.end as u64 };
        Some(if range.start < length && range.start < range.end {
            Requested::Part(part)
        } else {
            Requested::NotSatisfiable
        })
    };
    find().unwrap_or(Requested::Whole)
}

/// The lines of a head in the other order, with names in upper case.
fn turned(fields: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut head = START.as_bytes().to_vec();
    for (name, value) in fields.iter().rev() {
        head.extend_from_slice(&name.to_ascii_uppercase());
        head.extend_from_slice(b":\t");
        head.extend_from_slice(value);
        head.extend_from_slice(b" \r\n");
    }
    head.extend_from_slice(b"\r\n");
    head
}

fuzz_target!(|data: &[u8]| {
    let Some((&size, lines)) = data.split_first() else { return };
    let length = u64::from(size) * u64::from(size);
    assert_eq!(Requested::parse(lines, length), reference(lines, length));

    let head = [START.as_bytes(), lines, b"\r\n\r\n"].concat();
    if lines.windows(4).any(|end| end == b"\r\n\r\n") || parse_request(&head, 100).is_err() {
        return;
    }
    // Of one file, with the time of `If-Modified-Since` in the seeds.
    let etag = Etag::of_file(1_445_412_480_000_000_000, length, 7, None);
    let validators = Validators { etag, last_modified: Some(1_445_412_480) };
    let conditions = Conditions::of_head(&head);
    let verdict = |is_get| conditions.evaluate(&validators, length, is_get);
    let (get, without_part) = (verdict(true), verdict(false));
    match get {
        Verdict::Part(range) => {
            assert!(range.start < range.end && range.end <= length);
            let mut text = Vec::new();
            range.write(length, &mut text);
            let expected = format!("bytes {}-{}/{length}", range.start, range.end - 1);
            assert_eq!(text, expected.as_bytes());
        }
        Verdict::NotSatisfiable => {}
        Verdict::Whole | Verdict::NotModified | Verdict::PreconditionFailed => {
            assert_eq!(get, without_part);
        }
    }
    assert!(!matches!(without_part, Verdict::Part(_) | Verdict::NotSatisfiable));

    // A field that is not there changes nothing; names are in any case; their order is no matter.
    let fields: Vec<_> = Fields::of(&head).filter(|(name, _)| *name != b"Host").collect();
    let count = |lower: &str| {
        let is_same = |name: &[u8]| name.eq_ignore_ascii_case(lower.as_bytes());
        fields.iter().filter(|(name, _)| is_same(name)).count()
    };
    if count("range") != 1 {
        assert_eq!(get, without_part);
    }
    let lists = ["if-match", "if-none-match", "accept-encoding"];
    if lists.iter().all(|name| count(name) <= MAX_LINES) {
        let turned = turned(&fields);
        let other = Conditions::of_head(&turned);
        assert_eq!(other.evaluate(&validators, length, true), get);
    }

    let taken: Vec<Coding> =
        Codings::accepted(&conditions.accept_encoding, &OFFERED).iter().collect();
    assert!(taken.iter().all(|coding| OFFERED.contains(coding)));
    assert!((1..taken.len()).all(|at| !taken[..at].contains(&taken[at])));
    assert!(count("accept-encoding") > 0 || taken.is_empty());
});
