//! Reads numbers, durations and sizes.

use std::ops::RangeInclusive;

use toml::de::DeValue;

use super::mistake::Mistake;
use super::value::Value;
use crate::config::report::quoted;
use crate::config::units::{self, UnitError};

/// Reads a whole number in the range of the key.
pub(super) fn number(value: Value<'_>) -> Result<u64, Mistake> {
    let content = value.content()?;
    if !matches!(content, DeValue::Integer(_)) {
        return Err(value.wrong_type("a whole number"));
    }
    // The range is for the value as a whole, not for the elements of a list.
    let range = if value.element { 0..=u64::MAX } else { value.key.range.clone() };
    let number = whole_number(content).filter(|number| range.contains(number));
    number.ok_or_else(|| Mistake::Range(in_words(&range)))
}

/// Returns `None` if the value is not a whole number, is negative, or does not fit in 64 bits.
fn whole_number(value: &DeValue<'_>) -> Option<u64> {
    let DeValue::Integer(number) = value else { return None };
    u64::from_str_radix(number.as_str(), number.radix()).ok()
}

fn in_words(range: &RangeInclusive<u64>) -> String {
    match *range.end() {
        u64::MAX => format!("{} or more", range.start()),
        end => format!("{} to {end}", range.start()),
    }
}

/// Reads a duration in milliseconds. `None` is `"off"`.
pub(super) fn duration_ms(value: Value<'_>, may_be_off: bool) -> Result<Option<u64>, Mistake> {
    let key = &value.key.name;
    let Some(text) = with_unit(value.content()?) else {
        let off = if may_be_off { ", or \"off\"" } else { "" };
        let example = value.key.example();
        let example = example.as_deref().unwrap_or("\"5s\"");
        let note = format!("write {key} = {example}{off}; the units are ms, s, m, h and d");
        return Err(typed(value, "a duration", note));
    };
    let otherwise = if may_be_off { "write \"off\"" } else { "leave the key out for its default" };
    let (what, note) = match units::duration(&text) {
        Ok(duration) => {
            let time_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
            if value.key.range.contains(&time_ms) && time_ms.is_multiple_of(value.key.step_ms) {
                return Ok(Some(time_ms));
            }
            let what = format!("`{key}` is out of range: {}", quoted(&text));
            (what, value.key.advice.clone().unwrap_or_default())
        }
        Err(UnitError::Malformed) if text == "off" && may_be_off => return Ok(None),
        Err(UnitError::Malformed) if text == "off" => {
            (format!("`{key}` cannot be off"), format!("write a duration; {}", longest(value)))
        }
        Err(UnitError::Malformed) => (
            format!("`{key}` is not a duration: {}", quoted(&text)),
            format!(
                "write a whole number and a unit (ms, s, m, h or d), such as \"250ms\"{}",
                if may_be_off { "; or \"off\"" } else { "" }
            ),
        ),
        Err(UnitError::MissingUnit) => (
            format!("`{key}` has no unit"),
            format!("write \"{text}ms\" or \"{text}s\"; the units are ms, s, m, h and d"),
        ),
        Err(UnitError::Zero) => (
            format!("`{key}` cannot be 0"),
            format!("0 could mean \"at once\" or \"off\": {otherwise}"),
        ),
        Err(UnitError::TooLarge) => {
            (format!("`{key}` is too long: {}", quoted(&text)), longest(value))
        }
    };
    Err(Mistake::Other { what, note })
}

fn longest(value: Value<'_>) -> String {
    let advice = value.key.advice.as_deref().filter(|_| *value.key.range.end() < u64::MAX);
    advice.unwrap_or("the longest duration is \"365d\"").to_owned()
}

/// Reads a size in bytes, in the range of the key. `None` is `"off"`.
pub(super) fn size(value: Value<'_>, may_be_off: bool) -> Result<Option<u64>, Mistake> {
    let (key, range) = (&value.key.name, &value.key.range);
    let off = if may_be_off { ", or \"off\"" } else { "" };
    let Some(text) = with_unit(value.content()?) else {
        let note = format!("write {key} = \"16KiB\"{off}; the units are B, KiB, MiB and GiB");
        return Err(typed(value, "a size", note));
    };
    let bounds = || {
        if may_be_off {
            return String::from("write a size of at least \"1B\", or \"off\"");
        }
        let (low, high) = (units::in_bytes(*range.start()), units::in_bytes(*range.end()));
        format!("write a size from \"{low}\" to \"{high}\"")
    };
    let (what, note) = match units::size(&text) {
        Ok(size) if range.contains(&size) => return Ok(Some(size)),
        Ok(_) | Err(UnitError::TooLarge) => {
            (format!("`{key}` is out of range: {}", quoted(&text)), bounds())
        }
        Err(UnitError::Malformed) if text == "off" && may_be_off => return Ok(None),
        Err(UnitError::Malformed) => (
            format!("`{key}` is not a size: {}", quoted(&text)),
            format!("write a whole number and a unit (B, KiB, MiB or GiB), such as \"16KiB\"{off}"),
        ),
        Err(UnitError::MissingUnit) => (
            format!("`{key}` has no unit"),
            format!("write \"{text}B\" if it means bytes; the units are B, KiB, MiB and GiB"),
        ),
        Err(UnitError::Zero) => (format!("`{key}` cannot be 0"), bounds()),
    };
    Err(Mistake::Other { what, note })
}

/// The mistake that a value has another type, with a note of its own.
fn typed(value: Value<'_>, wanted: &str, note: String) -> Mistake {
    match value.wrong_type(wanted) {
        Mistake::Type { wanted, found } => Mistake::Other {
            what: format!("`{}` must be {wanted}, not {found}", value.key.name),
            note,
        },
        other => other,
    }
}

/// The text of a string, or of a whole number, which has no unit then.
fn with_unit(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.clone().into_owned()),
        other => whole_number(other).map(|number| number.to_string()),
    }
}
