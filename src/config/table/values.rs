//! Reads single values: durations, sizes and numbers. Reports those that have the wrong type, the
//! wrong form or are out of range.

use std::ops::RangeInclusive;
use std::time::Duration;

use toml::Spanned;
use toml::de::DeValue;

use super::At;
use crate::config::report::{Report, Span, quoted};
use crate::config::units::{self, UnitError};

/// Reports a value of the wrong type. The note shows the right form.
pub(super) fn report_wrong_type<T>(
    report: &Report<'_>,
    key: &str,
    wanted: &str,
    span: Span,
    found: &DeValue<'_>,
    note: String,
) -> Option<T> {
    let found = match found {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    };
    report.error(span, format!("`{key}` must be {wanted}, not {found}"), note);
    None
}

/// Reads an element of a list of strings. Reports any other element.
pub(super) fn read_element(
    report: &Report<'_>,
    key: &str,
    item: &Spanned<DeValue<'_>>,
) -> Option<At<String>> {
    let span = item.span().into();
    match item.get_ref() {
        DeValue::String(text) => Some(At { value: text.clone().into_owned(), span }),
        other => {
            let note = match other {
                DeValue::Table(_) => "tables in this list are not available in this version",
                _ => "write the value in quotes",
            };
            report.error(span, format!("`{key}` must contain strings only"), note);
            None
        }
    }
}

/// Returns `Some(None)` for "off" and `None` if an error was reported.
pub(super) fn read_duration(
    report: &Report<'_>,
    key: &str,
    value: &Spanned<DeValue<'_>>,
    may_be_off: bool,
) -> Option<Option<Duration>> {
    let span = value.span().into();
    let text = with_unit(value.get_ref());
    let unfit = match text.as_deref().map(units::duration) {
        Some(Ok(duration)) => return Some(Some(duration)),
        Some(Err(unfit)) => unfit,
        None => {
            let off = if may_be_off { ", or \"off\"" } else { "" };
            let note = format!("write {key} = \"5s\"{off}; the units are ms, s, m, h and d");
            return report_wrong_type(report, key, "a duration", span, value.get_ref(), note);
        }
    };
    let text = text.unwrap_or_default();
    let otherwise = if may_be_off { "write \"off\"" } else { "leave the key out for its default" };
    let (what, note) = match unfit {
        UnitError::Malformed if text == "off" && may_be_off => return Some(None),
        UnitError::Malformed if text == "off" => (
            format!("`{key}` cannot be off"),
            String::from("write a duration; the longest is \"365d\""),
        ),
        UnitError::Malformed => (
            format!("`{key}` is not a duration: {}", quoted(&text)),
            format!(
                "write a whole number and a unit (ms, s, m, h or d), such as \"250ms\"{}",
                if may_be_off { "; or \"off\"" } else { "" }
            ),
        ),
        UnitError::MissingUnit => (
            format!("`{key}` has no unit"),
            format!("write \"{text}ms\" or \"{text}s\"; the units are ms, s, m, h and d"),
        ),
        UnitError::Zero => (
            format!("`{key}` cannot be 0"),
            format!("0 could mean \"at once\" or \"off\": {otherwise}"),
        ),
        UnitError::TooLarge => (
            format!("`{key}` is too long: {}", quoted(&text)),
            String::from("the longest duration is \"365d\""),
        ),
    };
    report.error(span, what, note);
    None
}

/// Reads a size in the range, in bytes.
pub(super) fn read_size(
    report: &Report<'_>,
    key: &str,
    range: &RangeInclusive<u64>,
    value: &Spanned<DeValue<'_>>,
) -> Option<u64> {
    let span = value.span().into();
    let bounds = format!(
        "write a size from \"{}\" to \"{}\"",
        units::in_bytes(*range.start()),
        units::in_bytes(*range.end())
    );
    let text = with_unit(value.get_ref());
    let unfit = match text.as_deref().map(units::size) {
        Some(Ok(size)) if range.contains(&size) => return Some(size),
        Some(Ok(_)) => UnitError::TooLarge,
        Some(Err(unfit)) => unfit,
        None => {
            let note = format!("write {key} = \"16KiB\"; the units are B, KiB, MiB and GiB");
            return report_wrong_type(report, key, "a size", span, value.get_ref(), note);
        }
    };
    let text = text.unwrap_or_default();
    let (what, note) = match unfit {
        UnitError::Malformed => (
            format!("`{key}` is not a size: {}", quoted(&text)),
            String::from("write a whole number and a unit (B, KiB, MiB or GiB), such as \"16KiB\""),
        ),
        UnitError::MissingUnit => (
            format!("`{key}` has no unit"),
            format!("write \"{text}B\" if it means bytes; the units are B, KiB, MiB and GiB"),
        ),
        UnitError::Zero => (format!("`{key}` cannot be 0"), bounds),
        UnitError::TooLarge => (format!("`{key}` is out of range: {}", quoted(&text)), bounds),
    };
    report.error(span, what, note);
    None
}

/// The text of a string, or of a whole number, which has no unit then.
fn with_unit(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.clone().into_owned()),
        other => whole_number(other).map(|number| number.to_string()),
    }
}

/// Returns `None` if the value is not a whole number, is negative, or does not fit in 64 bits.
pub(in crate::config) fn whole_number(value: &DeValue<'_>) -> Option<u64> {
    let DeValue::Integer(number) = value else { return None };
    u64::from_str_radix(number.as_str(), number.radix()).ok()
}

/// The error message for a number that is too small or too large.
pub(in crate::config) fn out_of_range(key: &str, range: &RangeInclusive<u64>) -> String {
    match *range.end() {
        u64::MAX => format!("`{key}` must be {} or more", range.start()),
        end => format!("`{key}` must be {} to {end}", range.start()),
    }
}
