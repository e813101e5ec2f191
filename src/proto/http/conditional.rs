//! Conditional requests (RFC 9110 section 13): entity tags, dates, and whether a request that
//! names them is answered in full, in part, or not at all.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::coding::Coding;
use super::range::{ByteRange, Requested};

/// The most lines of one field that are kept. Clients send one.
const MAX_LINES: usize = 4;

/// The lines of a field whose value is a list (RFC 9110 section 5.3).
#[derive(Clone, Copy, Debug, Default)]
pub struct Lines<'a> {
    lines: [&'a [u8]; MAX_LINES],
    count: usize,
}

impl<'a> Lines<'a> {
    /// Adds a line. One beyond the limit is left out, which makes a condition fail and a coding
    /// refused at worst.
    pub fn add(&mut self, value: &'a [u8]) {
        if let Some(line) = self.lines.get_mut(self.count) {
            *line = value;
            self.count += 1;
        }
    }

    /// Returns true if the request has no such field.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The values in their order.
    pub fn iter(&self) -> impl Iterator<Item = &'a [u8]> {
        self.lines.into_iter().take(self.count)
    }
}

/// The value of a field that may occur once.
#[derive(Clone, Copy, Debug, Default)]
enum Single<'a> {
    #[default]
    Missing,
    Once(&'a [u8]),
    /// It has no meaning then, and is ignored.
    Repeated,
}

impl<'a> Single<'a> {
    fn add(&mut self, value: &'a [u8]) {
        *self = match self {
            Single::Missing => Single::Once(value),
            Single::Once(_) | Single::Repeated => Single::Repeated,
        };
    }

    fn value(self) -> Option<&'a [u8]> {
        match self {
            Single::Once(value) => Some(value.trim_ascii()),
            Single::Missing | Single::Repeated => None,
        }
    }
}

/// The fields of a request that decide how a file is sent, as they are in its head.
#[derive(Clone, Copy, Debug, Default)]
pub struct Conditions<'a> {
    if_match: Lines<'a>,
    if_none_match: Lines<'a>,
    if_modified_since: Single<'a>,
    if_unmodified_since: Single<'a>,
    if_range: Single<'a>,
    range: Single<'a>,
    /// The codings that the client takes.
    pub accept_encoding: Lines<'a>,
}

impl<'a> Conditions<'a> {
    /// The fields of a head that [`super::parse_request`] has accepted.
    pub fn of_head(head: &'a [u8]) -> Conditions<'a> {
        let mut conditions = Conditions::default();
        // The head has no bare line feed and no folded line.
        for line in head.split(|&byte| byte == b'\n').skip(1) {
            let Some(colon) = line.iter().position(|&byte| byte == b':') else { continue };
            // A name is a token, which is ASCII.
            if let Ok(name) = std::str::from_utf8(&line[..colon]) {
                conditions.add(name, line[colon + 1..].trim_ascii());
            }
        }
        conditions
    }

    /// Adds a field of the request. Does nothing if it is none of these.
    pub fn add(&mut self, name: &str, value: &'a [u8]) {
        match name.len() {
            5 if name.eq_ignore_ascii_case("range") => self.range.add(value),
            8 if name.eq_ignore_ascii_case("if-match") => self.if_match.add(value),
            8 if name.eq_ignore_ascii_case("if-range") => self.if_range.add(value),
            13 if name.eq_ignore_ascii_case("if-none-match") => self.if_none_match.add(value),
            15 if name.eq_ignore_ascii_case("accept-encoding") => self.accept_encoding.add(value),
            17 if name.eq_ignore_ascii_case("if-modified-since") => {
                self.if_modified_since.add(value);
            }
            19 if name.eq_ignore_ascii_case("if-unmodified-since") => {
                self.if_unmodified_since.add(value);
            }
            _ => {}
        }
    }

    /// Returns what a GET or HEAD of a representation with these validators leads to, in the order
    /// of RFC 9110 section 13.2.2. `length` is that of the representation; `is_get` is false for
    /// HEAD, which knows no ranges.
    pub fn evaluate(&self, validators: &Validators, length: u64, is_get: bool) -> Verdict {
        let Validators { etag, last_modified } = validators;
        // 1. and 2. Preconditions that fail.
        if !self.if_match.is_empty() {
            if !any_matches(&self.if_match, |tag| tag.is_same_strong(etag)) {
                return Verdict::PreconditionFailed;
            }
        } else if let Some(date) = date(self.if_unmodified_since)
            && last_modified.is_some_and(|modified| modified > date)
        {
            return Verdict::PreconditionFailed;
        }
        // 3. and 4. What the client has already.
        if !self.if_none_match.is_empty() {
            if any_matches(&self.if_none_match, |tag| tag.is_same(etag)) {
                return Verdict::NotModified;
            }
        } else if let Some(date) = date(self.if_modified_since)
            && last_modified.is_some_and(|modified| modified <= date)
        {
            return Verdict::NotModified;
        }
        // 5. A part.
        let Some(range) = self.range.value().filter(|_| is_get) else { return Verdict::Whole };
        if !self.may_send_part(validators) {
            return Verdict::Whole;
        }
        match Requested::parse(range, length) {
            Requested::Whole => Verdict::Whole,
            Requested::Part(range) => Verdict::Part(range),
            Requested::NotSatisfiable => Verdict::NotSatisfiable,
        }
    }

    /// Returns true if `If-Range` allows a part (RFC 9110 section 13.1.5). A weak tag and a date
    /// that is not exactly that of the representation do not.
    fn may_send_part(&self, validators: &Validators) -> bool {
        match self.if_range {
            Single::Missing => true,
            Single::Repeated => false,
            Single::Once(_) => {
                let value = self.if_range.value().unwrap_or_default();
                if value.starts_with(b"\"") || value.starts_with(b"W/") {
                    let tag = Tag::first(value).filter(|(_, rest)| rest.is_empty());
                    return tag.is_some_and(|(tag, _)| tag.is_same_strong(&validators.etag));
                }
                let modified = validators.last_modified;
                date(self.if_range).is_some_and(|date| modified == Some(date))
            }
        }
    }
}

/// What a request leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// 200: all of it.
    Whole,
    /// 206: this part.
    Part(ByteRange),
    /// 304.
    NotModified,
    /// 412.
    PreconditionFailed,
    /// 416.
    NotSatisfiable,
}

/// What tells two versions of a representation apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validators {
    /// Its entity tag.
    pub etag: Etag,
    /// When it was modified, in seconds since 1970. `None` if that would be in the future (RFC
    /// 9110 section 8.8.2.1).
    pub last_modified: Option<u64>,
}

impl Validators {
    /// The value of `Last-Modified`.
    pub fn last_modified_text(&self) -> Option<[u8; 29]> {
        self.last_modified.and_then(http_date)
    }
}

/// The time as an IMF-fixdate (RFC 9110 section 5.6.7). `None` after the year 9999.
fn http_date(seconds: u64) -> Option<[u8; 29]> {
    use std::io::Write;
    /// The last second of the year 9999.
    const LAST: u64 = 253_402_300_799;
    let mut text = [0; 29];
    let time = UNIX_EPOCH + Duration::from_secs(Some(seconds).filter(|&seconds| seconds <= LAST)?);
    write!(&mut text[..], "{}", httpdate::HttpDate::from(time)).ok()?;
    Some(text)
}

/// The date of a field in seconds since 1970. `None` if it is none.
fn date(field: Single<'_>) -> Option<u64> {
    let text = std::str::from_utf8(field.value()?).ok()?;
    let time: SystemTime = httpdate::parse_http_date(text).ok()?;
    time.duration_since(UNIX_EPOCH).ok().map(|time| time.as_secs())
}

/// The longest tag: three numbers of 16 digits, the name of a coding, and what is between them.
const MAX_ETAG: usize = 2 + 3 * 16 + 2 + 5;

/// A strong entity tag with its quotes (RFC 9110 section 8.8.3).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Etag {
    bytes: [u8; MAX_ETAG],
    length: u8,
}

impl Etag {
    /// The tag of a file: of the time of its modification in nanoseconds, its size, its inode, and
    /// the coding of its bytes.
    pub fn of_file(modified: u64, size: u64, inode: u64, coding: Option<Coding>) -> Etag {
        let mut etag = Etag { bytes: [0; MAX_ETAG], length: 0 };
        etag.push(b"\"");
        etag.push_hex(modified);
        etag.push(b"-");
        etag.push_hex(size);
        etag.push(b"-");
        etag.push_hex(inode);
        if let Some(coding) = coding {
            etag.push(b"-");
            etag.push(coding.name().as_bytes());
        }
        etag.push(b"\"");
        etag
    }

    /// The tag as it is sent.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    fn push(&mut self, bytes: &[u8]) {
        let start = usize::from(self.length);
        self.bytes[start..start + bytes.len()].copy_from_slice(bytes);
        self.length += bytes.len() as u8;
    }

    fn push_hex(&mut self, number: u64) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let digits = (64 - number.leading_zeros()).div_ceil(4).max(1);
        for digit in (0..digits).rev() {
            self.push(&[DIGITS[(number >> (4 * digit) & 15) as usize]]);
        }
    }
}

impl std::fmt::Debug for Etag {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}", self.as_bytes().escape_ascii())
    }
}

/// A tag in a request.
struct Tag<'a> {
    is_weak: bool,
    /// With its quotes.
    opaque: &'a [u8],
}

impl<'a> Tag<'a> {
    /// The tag at the start of the bytes, and what follows it.
    fn first(bytes: &'a [u8]) -> Option<(Tag<'a>, &'a [u8])> {
        let (is_weak, quoted) = match bytes.strip_prefix(b"W/") {
            Some(quoted) => (true, quoted),
            None => (false, bytes),
        };
        let inner = quoted.strip_prefix(b"\"")?;
        let length = inner.iter().position(|&byte| byte == b'"')?;
        let (opaque, rest) = quoted.split_at(length + 2);
        Some((Tag { is_weak, opaque }, rest))
    }

    /// The weak comparison (RFC 9110 section 8.8.3.2).
    fn is_same(&self, etag: &Etag) -> bool {
        self.opaque == etag.as_bytes()
    }

    /// The strong comparison.
    fn is_same_strong(&self, etag: &Etag) -> bool {
        !self.is_weak && self.is_same(etag)
    }
}

/// Returns true if a list of tags is `*`, or if one of its tags matches. What follows a malformed
/// tag in a line is ignored.
fn any_matches(list: &Lines<'_>, matches: impl Fn(&Tag<'_>) -> bool) -> bool {
    list.iter().any(|line| {
        let mut rest = line.trim_ascii();
        if rest == b"*" {
            return true;
        }
        while let Some((tag, behind)) = Tag::first(rest) {
            if matches(&tag) {
                return true;
            }
            let is_separator = |byte: &u8| matches!(byte, b' ' | b'\t' | b',');
            let next = behind.iter().position(|byte| !is_separator(byte)).unwrap_or(behind.len());
            rest = &behind[next..];
        }
        false
    })
}

#[cfg(test)]
mod tests;
