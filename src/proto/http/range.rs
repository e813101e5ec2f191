//! Byte ranges (RFC 9110 section 14.1.2). One range is sent as a part. Several are answered by the
//! whole representation, as a server may do: a list of many small or overlapping ranges would make
//! a cheap request expensive.

/// A part of a representation; `start` is less than `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteRange {
    /// The position of its first byte.
    pub start: u64,
    /// The position after its last byte.
    pub end: u64,
}

impl ByteRange {
    /// The number of bytes.
    pub fn length(self) -> u64 {
        self.end - self.start
    }

    /// Appends the value of `Content-Range` (RFC 9110 section 14.4) of a representation with this
    /// length.
    pub fn write(self, length: u64, out: &mut Vec<u8>) {
        let mut number = itoa::Buffer::new();
        out.extend_from_slice(b"bytes ");
        out.extend_from_slice(number.format(self.start).as_bytes());
        out.push(b'-');
        out.extend_from_slice(number.format(self.end - 1).as_bytes());
        out.push(b'/');
        out.extend_from_slice(number.format(length).as_bytes());
    }

    /// Appends the value of `Content-Range` of a 416.
    pub fn write_unsatisfied(length: u64, out: &mut Vec<u8>) {
        out.extend_from_slice(b"bytes */");
        out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
    }
}

/// What a range of a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requested {
    /// The whole: the field is malformed, has another unit, or has several ranges.
    Whole,
    /// A part.
    Part(ByteRange),
    /// Nothing that the representation has.
    NotSatisfiable,
}

impl Requested {
    /// Interprets the value of `Range` for a representation with this length.
    pub fn parse(value: &[u8], length: u64) -> Requested {
        Requested::find(value, length).unwrap_or(Requested::Whole)
    }

    fn find(value: &[u8], length: u64) -> Option<Requested> {
        let (unit, set) = value.split_at_checked(6)?;
        if !unit.eq_ignore_ascii_case(b"bytes=") {
            return None;
        }
        let set = set.trim_ascii();
        let dash = set.iter().position(|&byte| byte == b'-')?;
        let (first, last) = (&set[..dash], &set[dash + 1..]);
        let (start, end) = match (position(first)?, position(last)?) {
            (None, None) => return None,
            // An empty representation has no part. Players ask for `bytes=0-` of anything, so that
            // the whole of it is of more use to them than an error.
            _ if length == 0 => return None,
            (Some(first), None) => (first, length),
            (Some(first), Some(last)) if first > last => return None,
            (Some(first), Some(last)) => (first, last.saturating_add(1).min(length)),
            (None, Some(0)) => return Some(Requested::NotSatisfiable),
            (None, Some(suffix)) => (length.saturating_sub(suffix), length),
        };
        let is_satisfiable = start < length;
        Some(if is_satisfiable {
            Requested::Part(ByteRange { start, end })
        } else {
            Requested::NotSatisfiable
        })
    }
}

/// Parses a position. The inner value is `None` if there are no digits. A number that does not fit
/// is more than any length.
#[expect(clippy::option_option, reason = "malformed, left out, or a number")]
fn position(digits: &[u8]) -> Option<Option<u64>> {
    if digits.is_empty() {
        return Some(None);
    }
    let add = |sum: u64, digit: &u8| {
        let value = u64::from(digit.is_ascii_digit().then(|| digit - b'0')?);
        Some(sum.saturating_mul(10).saturating_add(value))
    };
    digits.iter().try_fold(0, add).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn part(start: u64, end: u64) -> Requested {
        Requested::Part(ByteRange { start, end })
    }

    #[test]
    fn one_range_is_a_part() {
        let of = |value: &str| Requested::parse(value.as_bytes(), 100);
        assert_eq!(of("bytes=0-0"), part(0, 1));
        assert_eq!(of("bytes=10-19"), part(10, 20));
        assert_eq!(of("BYTES=10-"), part(10, 100));
        assert_eq!(of("bytes=99-200"), part(99, 100));
        assert_eq!(of("bytes=-1"), part(99, 100));
        assert_eq!(of("bytes=-100"), part(0, 100));
        assert_eq!(of("bytes=-101"), part(0, 100));
        assert_eq!(of("bytes= 0-1 "), part(0, 2));
        assert_eq!(of("bytes=0-18446744073709551615"), part(0, 100));
        assert_eq!(of("bytes=0-99999999999999999999999"), part(0, 100));
        assert_eq!(of("bytes=-99999999999999999999999"), part(0, 100));
    }

    #[test]
    fn a_range_behind_the_end_is_not_satisfiable() {
        for value in [
            "bytes=100-",
            "bytes=100-200",
            "bytes=-0",
            "bytes=18446744073709551616-",
            "bytes=99999999999999999999-99999999999999999999",
        ] {
            assert_eq!(
                Requested::parse(value.as_bytes(), 100),
                Requested::NotSatisfiable,
                "{value}"
            );
        }
        let of_nothing = |value: &str| Requested::parse(value.as_bytes(), 0);
        assert_eq!(of_nothing("bytes=0-"), Requested::Whole);
        assert_eq!(of_nothing("bytes=-0"), Requested::Whole);
        assert_eq!(of_nothing("bytes=-5"), Requested::Whole);
    }

    #[test]
    fn several_ranges_and_malformed_ones_are_the_whole() {
        for value in [
            "bytes=0-1,5-6",
            "bytes=0-,",
            "bytes=,0-1",
            "bytes=0-1, -1",
            "bytes=",
            "bytes",
            "bytes=-",
            "bytes=a-b",
            "bytes=1",
            "bytes=5-4",
            "bytes=0--1",
            "bytes=--1",
            "bytes=+1-2",
            "bytes=0-1x",
            "items=0-1",
            "bytes = 0-1",
            "bytes=0 -1",
            "",
            "bytes=0x1-2",
            "bytes:0-1",
        ] {
            assert_eq!(Requested::parse(value.as_bytes(), 100), Requested::Whole, "{value}");
        }
    }

    #[test]
    fn content_range_counts_from_zero_and_names_the_length() {
        let mut out = Vec::new();
        ByteRange { start: 10, end: 20 }.write(100, &mut out);
        assert_eq!(out, b"bytes 10-19/100");
        out.clear();
        ByteRange::write_unsatisfied(100, &mut out);
        assert_eq!(out, b"bytes */100");
    }

    proptest! {
        #[test]
        fn a_range_gives_the_bytes_that_it_names(first: u64, last: u64, length in 1u64..) {
            let found = Requested::parse(format!("bytes={first}-{last}").as_bytes(), length);
            let expected = if first > last {
                Requested::Whole
            } else if first >= length {
                Requested::NotSatisfiable
            } else {
                part(first, last.min(length - 1) + 1)
            };
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn a_part_is_inside_whatever_the_field_says(
            value in "bytes=[0-9]{0,25}-[0-9]{0,25}[,-]?", length: u64,
        ) {
            if let Requested::Part(range) = Requested::parse(value.as_bytes(), length) {
                prop_assert!(range.start < range.end && range.end <= length);
            }
        }
    }
}
