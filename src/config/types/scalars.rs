//! Durations, sizes and numbers, also those that can be off. The text form of the first two is in
//! `units`.

use std::fmt;
use std::time::Duration;

use schemars::json_schema;
use serde::de::{Deserialize, Deserializer, Error, Visitor};

/// The name by which [`Time`] asks for milliseconds.
pub(in crate::config) const DURATION: &str = "$duration";
/// The name by which [`Off`] asks for milliseconds, or for unit if the value is `"off"`.
pub(in crate::config) const DURATION_OR_OFF: &str = "$duration_or_off";
/// The name by which [`Size`] asks for bytes.
pub(in crate::config) const SIZE: &str = "$size";
/// The name by which [`SizeOrOff`] asks for bytes, or for unit if the value is `"off"`.
pub(in crate::config) const SIZE_OR_OFF: &str = "$size_or_off";

/// A duration, such as `"250ms"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) struct Time(pub(in crate::config) Duration);

/// A duration or `"off"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) struct Off(pub(in crate::config) Option<Duration>);

/// A number of bytes, such as `"16KiB"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) struct Size(pub(in crate::config) u64);

/// A number of bytes or `"off"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) struct SizeOrOff(pub(in crate::config) Option<u64>);

/// A whole number or `"off"`. The key declares the range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) struct CountOrOff(pub(in crate::config) Option<u64>);

const DURATION_PATTERN: &str = "^0*[1-9][0-9]*(ms|s|m|h|d)$";
const DURATION_OR_OFF_PATTERN: &str = "^(off|0*[1-9][0-9]*(ms|s|m|h|d))$";
const SIZE_PATTERN: &str = "^0*[1-9][0-9]*(B|KiB|MiB|GiB)$";
const SIZE_OR_OFF_PATTERN: &str = "^(off|0*[1-9][0-9]*(B|KiB|MiB|GiB))$";

has_schema!(Time, "Duration", {
    json_schema!({ "type": "string", "pattern": DURATION_PATTERN, "x-type": "duration" })
});

has_schema!(Off, "DurationOrOff", {
    json_schema!({
        "type": "string",
        "pattern": DURATION_OR_OFF_PATTERN,
        "x-type": "duration or \"off\"",
    })
});

has_schema!(Size, "Size", {
    json_schema!({ "type": "string", "pattern": SIZE_PATTERN, "x-type": "size" })
});

has_schema!(SizeOrOff, "SizeOrOff", {
    json_schema!({
        "type": "string", "pattern": SIZE_OR_OFF_PATTERN, "x-type": "size or \"off\"",
    })
});

has_schema!(CountOrOff, "CountOrOff", {
    json_schema!({ "type": ["string", "integer"], "pattern": "^off$" })
});

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let time_ms = deserializer.deserialize_newtype_struct(DURATION, Number)?;
        Ok(Time(Duration::from_millis(time_ms.unwrap_or_default())))
    }
}

impl<'de> Deserialize<'de> for Off {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let time_ms = deserializer.deserialize_newtype_struct(DURATION_OR_OFF, Number)?;
        Ok(Off(time_ms.map(Duration::from_millis)))
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = deserializer.deserialize_newtype_struct(SIZE, Number)?;
        Ok(Size(bytes.unwrap_or_default()))
    }
}

impl<'de> Deserialize<'de> for SizeOrOff {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(SIZE_OR_OFF, Number).map(SizeOrOff)
    }
}

impl<'de> Deserialize<'de> for CountOrOff {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Number).map(CountOrOff)
    }
}

/// A number; unit and `"off"` are `None`.
struct Number;

impl Visitor<'_> for Number {
    type Value = Option<u64>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number or \"off\"")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Option<u64>, E> {
        if text == "off" { Ok(None) } else { Err(E::unknown_variant(text, &["off"])) }
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Option<u64>, E> {
        Ok(Some(number))
    }

    fn visit_unit<E: Error>(self) -> Result<Option<u64>, E> {
        Ok(None)
    }
}
