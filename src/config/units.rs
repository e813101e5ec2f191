//! Parses durations (`"250ms"`, `"1h"`) and sizes (`"64KiB"`).
//!
//! A value is one whole number and one unit, so that it cannot be misread. Everything else is
//! refused instead of guessed. `0` is refused as well, because some programs treat it as "off" and
//! others as "at once".

use std::time::Duration;

/// The longest duration. A longer one is probably a mistake.
pub(super) const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Why a text is not a duration or a size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    /// Not a whole number with a unit.
    Shape,
    /// A whole number without a unit.
    NoUnit,
    /// The number is 0.
    Zero,
    /// More than [`LONGEST`], or more bytes than a `u64` holds.
    TooMuch,
}

/// Parses `"250ms"`, `"5s"`, `"1m"`, `"1h"` or `"1d"`: more than 0, at most 365 days.
pub(super) fn duration(text: &str) -> Result<Duration, Unfit> {
    let (number, unit) = split(text)?;
    let unit_ms: u64 = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60 * 1000,
        "h" => 60 * 60 * 1000,
        "d" => 24 * 60 * 60 * 1000,
        "" => return more_than_nothing(number).and(Err(Unfit::NoUnit)),
        _ => return Err(Unfit::Shape),
    };
    let duration_ms = more_than_nothing(number)?.checked_mul(unit_ms).ok_or(Unfit::TooMuch)?;
    let duration = Duration::from_millis(duration_ms);
    if duration > LONGEST { Err(Unfit::TooMuch) } else { Ok(duration) }
}

/// Parses `"512B"`, `"64KiB"`, `"1MiB"` or `"1GiB"` into bytes: more than 0.
pub(super) fn size(text: &str) -> Result<u64, Unfit> {
    let (number, unit) = split(text)?;
    let unit_bytes: u64 = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "" => return more_than_nothing(number).and(Err(Unfit::NoUnit)),
        _ => return Err(Unfit::Shape),
    };
    more_than_nothing(number)?.checked_mul(unit_bytes).ok_or(Unfit::TooMuch)
}

/// Splits a text into its leading digits and the rest.
fn split(text: &str) -> Result<(&str, &str), Unfit> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    if digits == 0 { Err(Unfit::Shape) } else { Ok(text.split_at(digits)) }
}

fn more_than_nothing(digits: &str) -> Result<u64, Unfit> {
    match digits.parse() {
        Ok(0) => Err(Unfit::Zero),
        Ok(number) => Ok(number),
        // Only digits are passed in, so the only possible error is an overflow.
        Err(_) => Err(Unfit::TooMuch),
    }
}

/// Formats a size for a message, in the largest unit that gives a whole number.
pub(super) fn in_bytes(size: u64) -> String {
    match size {
        _ if size > 0 && size.is_multiple_of(1 << 20) => format!("{}MiB", size >> 20),
        _ if size > 0 && size.is_multiple_of(1 << 10) => format!("{}KiB", size >> 10),
        _ => format!("{size}B"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_unit_is_understood() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(duration("1m"), Ok(Duration::from_secs(60)));
        assert_eq!(duration("1h"), Ok(Duration::from_secs(3600)));
        assert_eq!(duration("1d"), Ok(Duration::from_secs(86_400)));
        assert_eq!(duration("365d"), Ok(LONGEST));
        assert_eq!(size("512B"), Ok(512));
        assert_eq!(size("64KiB"), Ok(65_536));
        assert_eq!(size("1MiB"), Ok(1_048_576));
        assert_eq!(size("2GiB"), Ok(2_147_483_648));
    }

    #[test]
    fn nothing_is_guessed() {
        for text in ["", "s", "1.5s", "-1s", "+1s", " 1s", "1 s", "1h30m", "1S", "1sec", "1_0s"] {
            assert_eq!(duration(text), Err(Unfit::Shape), "{text:?}");
        }
        for text in ["", "KiB", "1KB", "1k", "1M", "1 KiB", "1.5MiB"] {
            assert_eq!(size(text), Err(Unfit::Shape), "{text:?}");
        }
        assert_eq!(duration("5"), Err(Unfit::NoUnit));
        assert_eq!(size("5"), Err(Unfit::NoUnit));
        assert_eq!(duration("0s"), Err(Unfit::Zero));
        assert_eq!(duration("0"), Err(Unfit::Zero));
        assert_eq!(size("0"), Err(Unfit::Zero));
        assert_eq!(size("0B"), Err(Unfit::Zero));
        assert_eq!(duration("366d"), Err(Unfit::TooMuch));
        assert_eq!(duration("99999999999999999999s"), Err(Unfit::TooMuch));
        assert_eq!(size("18446744073709551615KiB"), Err(Unfit::TooMuch));
    }

    #[test]
    fn sizes_are_shown_in_their_largest_unit() {
        assert_eq!(in_bytes(65_536), "64KiB");
        assert_eq!(in_bytes(1_048_576), "1MiB");
        assert_eq!(in_bytes(1000), "1000B");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,24}") {
            if let Ok(read) = duration(&text) {
                prop_assert!(read > Duration::ZERO && read <= LONGEST);
            }
            if let Ok(read) = size(&text) {
                prop_assert!(read > 0);
            }
        }

        #[test]
        fn milliseconds_come_back_as_written(ms in 1_u64..=31_536_000_000) {
            prop_assert_eq!(duration(&format!("{ms}ms")), Ok(Duration::from_millis(ms)));
        }

        #[test]
        fn a_size_comes_back_as_shown(bytes in 1_u64..) {
            prop_assert_eq!(size(&in_bytes(bytes)), Ok(bytes));
        }

        #[test]
        fn larger_units_are_multiples(number in 1_u64..=365) {
            let read = |unit| duration(&format!("{number}{unit}"));
            prop_assert_eq!(read("d"), duration(&format!("{}h", number * 24)));
            prop_assert_eq!(read("h"), duration(&format!("{}m", number * 60)));
            prop_assert_eq!(read("m"), duration(&format!("{}s", number * 60)));
            prop_assert_eq!(read("s"), duration(&format!("{}ms", number * 1000)));
        }
    }
}
