//! Writes single values: times, numbers, addresses and text from peers. The code is hand-written
//! and does not allocate, because workers run it for each field of each record.
//!
//! All text from peers is converted to printable ASCII. It can therefore not end a line, look like
//! another field or move the cursor of a terminal.

use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::sys::Address;

/// The value of one field.
pub(super) enum Value<'a> {
    /// There is no value.
    Missing,
    /// A point in time.
    Time(SystemTime),
    /// A word of ringgate's own that needs no escaping.
    Word(&'static str),
    /// Any other text, which may be hostile.
    Text(&'a str),
    /// Any other bytes, which are mostly text.
    Bytes(&'a [u8]),
    /// An address, whose path may be hostile, too.
    Address(&'a Address),
    /// A list of addresses.
    Addresses(&'a [Rc<Address>]),
    /// A count, a status or milliseconds.
    Number(u64),
    /// Whether something is so.
    Bool(bool),
}

impl Value<'_> {
    /// Writes the value as one word without spaces or quotes; `-` if it is missing. Always inlined,
    /// because the caller mostly knows the variant. The long branches are calls.
    #[inline(always)]
    pub(super) fn write_text(&self, clock: &mut Clock, out: &mut Vec<u8>) {
        match self {
            Value::Missing => out.push(b'-'),
            Value::Time(time) => clock.write(*time, out),
            Value::Word(word) => out.extend_from_slice(word.as_bytes()),
            Value::Text(text) => escape_text(text.as_bytes(), out),
            Value::Bytes(bytes) => escape_text(bytes, out),
            Value::Address(address) => address_as_text(address, out),
            Value::Addresses([]) => out.push(b'-'),
            Value::Addresses(addresses) => addresses_as_text(addresses, out),
            Value::Number(number) => write_number(*number, out),
            Value::Bool(bool) => out.extend_from_slice(if *bool { b"true" } else { b"false" }),
        }
    }

    /// Writes the value as JSON (RFC 8259): a string, a number, a boolean, an array or `null`.
    #[inline(always)]
    pub(super) fn write_json(&self, clock: &mut Clock, out: &mut Vec<u8>) {
        if let Value::Missing = self {
            return out.extend_from_slice(b"null");
        }
        if let Value::Number(number) = self {
            return write_number(*number, out);
        }
        if let Value::Bool(bool) = self {
            return out.extend_from_slice(if *bool { b"true" } else { b"false" });
        }
        if let Value::Addresses(addresses) = self {
            return addresses_as_json(addresses, out);
        }
        out.push(b'"');
        match self {
            Value::Missing | Value::Number(_) | Value::Bool(_) | Value::Addresses(_) => {}
            Value::Time(time) => clock.write(*time, out),
            Value::Word(word) => out.extend_from_slice(word.as_bytes()),
            Value::Text(text) => escape_json(text, out),
            // Allocates only where the bytes are not UTF-8, which is rare.
            Value::Bytes(bytes) => escape_json(&String::from_utf8_lossy(bytes), out),
            Value::Address(address) => address_as_json(address, out),
        }
        out.push(b'"');
    }
}

/// The maximum number of addresses written from a list; `...` stands for the rest. It bounds the
/// length of a line for a name with many addresses.
const MOST_ADDRESSES: usize = 16;

#[inline(always)]
fn address_as_text(address: &Address, out: &mut Vec<u8>) {
    match address {
        Address::Ip(address) => write_ip(address, out),
        Address::Unix(path) => {
            out.extend_from_slice(b"unix:");
            // An unnamed socket has an empty path, which is not the `-` of a missing value.
            if !path.as_os_str().is_empty() {
                escape_text(path.as_os_str().as_bytes(), out);
            }
        }
    }
}

/// Writes the content of a JSON string.
#[inline(always)]
fn address_as_json(address: &Address, out: &mut Vec<u8>) {
    match address {
        Address::Ip(address) => write_ip(address, out),
        Address::Unix(path) => {
            out.extend_from_slice(b"unix:");
            escape_json(&path.to_string_lossy(), out);
        }
    }
}

/// Writes a list such as `10.0.0.1:80,10.0.0.2:80`.
#[cold]
fn addresses_as_text(addresses: &[Rc<Address>], out: &mut Vec<u8>) {
    for (position, address) in addresses.iter().take(MOST_ADDRESSES).enumerate() {
        if position > 0 {
            out.push(b',');
        }
        address_as_text(address, out);
    }
    if addresses.len() > MOST_ADDRESSES {
        out.extend_from_slice(b",...");
    }
}

/// Writes a JSON array of strings, which may be empty.
fn addresses_as_json(addresses: &[Rc<Address>], out: &mut Vec<u8>) {
    out.push(b'[');
    for (position, address) in addresses.iter().take(MOST_ADDRESSES).enumerate() {
        out.extend_from_slice(if position > 0 { &b",\""[..] } else { b"\"" });
        address_as_json(address, out);
        out.push(b'"');
    }
    if addresses.len() > MOST_ADDRESSES {
        out.extend_from_slice(b",\"...\"");
    }
    out.push(b']');
}

/// Writes times as RFC 3339 in UTC with milliseconds. It caches the text of the last second: under
/// load thousands of records share it and differ only in the milliseconds.
#[derive(Clone, Debug)]
pub struct Clock {
    /// The second that `text` represents, since 1970.
    second: u64,
    /// Always 24 characters. The milliseconds are those of the last call.
    text: [u8; 24],
}

impl Default for Clock {
    fn default() -> Self {
        Clock { second: 0, text: *b"1970-01-01T00:00:00.000Z" }
    }
}

impl Clock {
    /// 9999-12-31T23:59:59Z, the last second of a year with four digits.
    const LAST: u64 = 253_402_300_799;

    /// Appends `time` to `out`. A time before 1970 or after 9999 is written as the nearest
    /// representable one.
    #[inline]
    pub fn write(&mut self, time: SystemTime, out: &mut Vec<u8>) {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let second = since.as_secs().min(Self::LAST);
        if second != self.second {
            self.set(second);
        }
        digits(&mut self.text[20..23], u64::from(since.subsec_millis()));
        out.extend_from_slice(&self.text);
    }

    /// Appends `time` as nginx's `$time_local` has it, in UTC: `02/Jan/2026:03:04:05 +0000`.
    pub(super) fn write_common(&mut self, time: SystemTime, out: &mut Vec<u8>) {
        const MONTHS: &[u8; 36] = b"JanFebMarAprMayJunJulAugSepOctNovDec";
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let second = since.as_secs().min(Self::LAST);
        if second != self.second {
            self.set(second);
        }
        let text = &self.text;
        let month = usize::from(10 * (text[5] & 15) + (text[6] & 15)) - 1;
        let month = &MONTHS[3 * month..3 * month + 3];
        for part in [&text[8..10], b"/", month, b"/", &text[..4], b":", &text[11..19], b" +0000"] {
            out.extend_from_slice(part);
        }
    }

    #[cold]
    fn set(&mut self, second: u64) {
        self.second = second;
        let mut days = second / 86_400;
        let mut year = 1970;
        while days >= days_of_year(year) {
            days -= days_of_year(year);
            year += 1;
        }
        let mut month = 1;
        while days >= days_of_month(year, month) {
            days -= days_of_month(year, month);
            month += 1;
        }
        digits(&mut self.text[0..4], year);
        digits(&mut self.text[5..7], month);
        digits(&mut self.text[8..10], days + 1);
        digits(&mut self.text[11..13], second / 3600 % 24);
        digits(&mut self.text[14..16], second / 60 % 60);
        digits(&mut self.text[17..19], second % 60);
    }
}

fn leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_of_year(year: u64) -> u64 {
    if leap(year) { 366 } else { 365 }
}

fn days_of_month(year: u64, month: u64) -> u64 {
    match month {
        2 if leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Fills `field` with the last digits of `value`, with leading zeros.
fn digits(field: &mut [u8], mut value: u64) {
    for digit in field.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

#[inline(never)]
pub(super) fn write_number(number: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Writes an address as `Display` does. IPv4, which is most of the traffic, avoids the formatting
/// machinery.
fn write_ip(address: &SocketAddr, out: &mut Vec<u8>) {
    let SocketAddr::V4(v4) = address else {
        // Writing to a Vec cannot fail.
        let _ = write!(out, "{address}");
        return;
    };
    for (position, octet) in v4.ip().octets().into_iter().enumerate() {
        if position > 0 {
            out.push(b'.');
        }
        out.extend_from_slice(itoa::Buffer::new().format(octet).as_bytes());
    }
    out.push(b':');
    out.extend_from_slice(itoa::Buffer::new().format(v4.port()).as_bytes());
}

/// Returns true when a byte needs no escape in a JSON string. More is escaped than RFC 8259
/// requires: some readers split lines at separators beyond ASCII, and other characters reverse the
/// direction of the text.
#[inline]
fn plain_in_json(byte: u8) -> bool {
    (b' '..=b'~').contains(&byte) & (byte != b'"') & (byte != b'\\')
}

/// Returns true when a byte needs no escape in text. A space needs one, so that lines can be split
/// at spaces.
#[inline]
fn plain_in_text(byte: u8) -> bool {
    plain_in_json(byte) & (byte != b' ')
}

/// Returns true when all bytes are `plain`. It has no early exit, so that the compiler can
/// vectorise the loop; nearly every value passes.
#[inline]
fn all(value: &[u8], plain: impl Fn(u8) -> bool) -> bool {
    value.iter().fold(true, |all, &byte| all & plain(byte))
}

pub(super) const HEX: &[u8; 16] = b"0123456789ABCDEF";

/// Writes bytes that are not plain as `\xNN`. An empty value becomes `-`; a value `-` is escaped so
/// that it differs from an empty one.
#[inline(never)]
fn escape_text(value: &[u8], out: &mut Vec<u8>) {
    if value.len() > 1 && all(value, plain_in_text) {
        return out.extend_from_slice(value);
    }
    escape_text_slowly(value, out);
}

#[cold]
fn escape_text_slowly(value: &[u8], out: &mut Vec<u8>) {
    if value.is_empty() {
        out.push(b'-');
    }
    for &byte in value {
        if plain_in_text(byte) && value != b"-" {
            out.push(byte);
        } else {
            let (high, low) = (HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]);
            out.extend_from_slice(&[b'\\', b'x', high, low]);
        }
    }
}

/// Writes the content of a JSON string in ASCII.
#[inline(never)]
fn escape_json(value: &str, out: &mut Vec<u8>) {
    if all(value.as_bytes(), plain_in_json) {
        return out.extend_from_slice(value.as_bytes());
    }
    escape_json_slowly(value, out);
}

#[cold]
fn escape_json_slowly(value: &str, out: &mut Vec<u8>) {
    for char in value.chars() {
        match char {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            ' '..='~' => out.push(char as u8),
            _ => escape_char(char, out),
        }
    }
}

/// Writes `\u` and four digits (RFC 8259 section 7), twice for a character beyond the basic plane.
fn escape_char(char: char, out: &mut Vec<u8>) {
    for unit in char.encode_utf16(&mut [0; 2]) {
        out.extend_from_slice(b"\\u");
        for shift in [12, 8, 4, 0] {
            out.push(HEX[usize::from(*unit >> shift & 15)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn text(value: Value) -> String {
        let mut out = Vec::new();
        value.write_text(&mut Clock::default(), &mut out);
        String::from_utf8(out).unwrap()
    }

    fn json(value: Value) -> String {
        let mut out = Vec::new();
        value.write_json(&mut Clock::default(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn text_escapes_what_could_be_taken_for_something_else() {
        assert_eq!(text(Value::Text("/a?b=c%20d")), "/a?b=c%20d");
        assert_eq!(
            text(Value::Text("a b\"c\\d\n\u{7f}é")),
            "a\\x20b\\x22c\\x5Cd\\x0A\\x7F\\xC3\\xA9"
        );
        assert_eq!(text(Value::Text("")), "-");
        assert_eq!(text(Value::Text("-")), "\\x2D");
        assert_eq!(text(Value::Text("--")), "--");
        assert_eq!(text(Value::Missing), "-");
    }

    #[test]
    fn json_is_ascii_and_escapes_the_rest() {
        assert_eq!(json(Value::Text("a b\"c\\d")), r#""a b\"c\\d""#);
        assert_eq!(
            json(Value::Text("\n\u{7f}é\u{2028}😀")),
            r#""\u000A\u007F\u00E9\u2028\uD83D\uDE00""#
        );
        assert_eq!(json(Value::Text("")), "\"\"");
        assert_eq!(json(Value::Missing), "null");
        assert_eq!(json(Value::Number(u64::MAX)), "18446744073709551615");
    }

    #[test]
    fn unix_addresses_keep_odd_bytes_in_text_and_stay_valid_in_json() {
        let odd = std::ffi::OsStr::from_bytes(b"/run/\xff \"x");
        let odd = Address::Unix(PathBuf::from(odd));
        assert_eq!(text(Value::Address(&odd)), "unix:/run/\\xFF\\x20\\x22x");
        assert_eq!(json(Value::Address(&odd)), r#""unix:/run/\uFFFD \"x""#);
        let unnamed = Address::Unix(PathBuf::new());
        assert_eq!(text(Value::Address(&unnamed)), "unix:");
        assert_eq!(json(Value::Address(&unnamed)), "\"unix:\"");
    }

    #[test]
    fn times_out_of_range_become_the_nearest_writable_one() {
        let mut clock = Clock::default();
        let mut out = Vec::new();
        clock.write(UNIX_EPOCH - Duration::from_secs(5), &mut out);
        assert_eq!(out, b"1970-01-01T00:00:00.000Z");
        out.clear();
        clock.write(UNIX_EPOCH + Duration::from_secs(Clock::LAST + 5), &mut out);
        assert_eq!(out, b"9999-12-31T23:59:59.000Z");
    }

    #[test]
    fn common_times_share_the_second_of_the_others() {
        let mut clock = Clock::default();
        for (second, expected) in [
            (0, "01/Jan/1970:00:00:00 +0000"),
            (1_767_323_045, "02/Jan/2026:03:04:05 +0000"),
            (1_767_139_199, "30/Dec/2025:23:59:59 +0000"),
            (1_709_164_800, "29/Feb/2024:00:00:00 +0000"),
        ] {
            let time = UNIX_EPOCH + Duration::from_secs(second);
            let (mut out, mut other) = (Vec::new(), Vec::new());
            clock.write_common(time, &mut out);
            clock.write(time, &mut other);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
            let other = String::from_utf8(other).unwrap();
            assert_eq!(other, humantime::format_rfc3339_millis(time).to_string());
        }
    }

    proptest! {
        #[test]
        fn one_clock_writes_every_time_as_another_implementation_does(
            times in proptest::collection::vec((0..Clock::LAST, 0..1000u64), 1..8),
            same in any::<bool>(),
        ) {
            let mut clock = Clock::default();
            for (second, millis) in &times {
                // Half of the cases stay within one second, where only the milliseconds change.
                let second = if same { times[0].0 } else { *second };
                let time = UNIX_EPOCH + Duration::from_millis(second * 1000 + millis);
                let mut out = Vec::new();
                clock.write(time, &mut out);
                let expected = humantime::format_rfc3339_millis(time).to_string();
                prop_assert_eq!(String::from_utf8(out).unwrap(), expected);
            }
        }

        #[test]
        fn ip_addresses_look_as_everywhere_else(address in any::<SocketAddr>()) {
            let address = Address::Ip(address);
            prop_assert_eq!(text(Value::Address(&address)), address.to_string());
            prop_assert_eq!(json(Value::Address(&address)), format!("\"{address}\""));
        }
    }
}
