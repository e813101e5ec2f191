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
pub(super) enum UnitError {
    /// Not a whole number with a unit.
    Malformed,
    /// A whole number without a unit.
    MissingUnit,
    /// The number is 0.
    Zero,
    /// More than [`LONGEST`], or more bytes than a `u64` holds.
    TooLarge,
}

/// Parses `"250ms"`, `"5s"`, `"1m"`, `"1h"` or `"1d"`: more than 0, at most 365 days.
pub(super) fn duration(text: &str) -> Result<Duration, UnitError> {
    let (number, unit) = split_unit(text)?;
    let unit_ms: u64 = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60 * 1000,
        "h" => 60 * 60 * 1000,
        "d" => 24 * 60 * 60 * 1000,
        "" => return parse_positive(number).and(Err(UnitError::MissingUnit)),
        _ => return Err(UnitError::Malformed),
    };
    let duration_ms = parse_positive(number)?.checked_mul(unit_ms).ok_or(UnitError::TooLarge)?;
    let duration = Duration::from_millis(duration_ms);
    if duration > LONGEST { Err(UnitError::TooLarge) } else { Ok(duration) }
}

/// Parses `"512B"`, `"64KiB"`, `"1MiB"` or `"1GiB"` into bytes: more than 0.
pub(super) fn size(text: &str) -> Result<u64, UnitError> {
    let (number, unit) = split_unit(text)?;
    let unit_bytes: u64 = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "" => return parse_positive(number).and(Err(UnitError::MissingUnit)),
        _ => return Err(UnitError::Malformed),
    };
    parse_positive(number)?.checked_mul(unit_bytes).ok_or(UnitError::TooLarge)
}

/// Splits a text into its leading digits and the unit after them.
fn split_unit(text: &str) -> Result<(&str, &str), UnitError> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    if digits == 0 { Err(UnitError::Malformed) } else { Ok(text.split_at(digits)) }
}

/// Parses a number that is not 0.
fn parse_positive(digits: &str) -> Result<u64, UnitError> {
    match digits.parse() {
        Ok(0) => Err(UnitError::Zero),
        Ok(number) => Ok(number),
        // Only digits are passed in, so the only possible error is an overflow.
        Err(_) => Err(UnitError::TooLarge),
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
mod tests;
