//! The types of keys in the file: a key with its position, lists and tables of them, durations and
//! sizes.
//!
//! `keys` declares the tables with these types, `read` fills them in. serde knows neither positions
//! nor defaults of single keys. So these types ask the deserializer for themselves by names that
//! begin with `$`, as `toml::Spanned` does, and `read` gives them their parts.

mod field;
mod lists;
mod maybe;
mod scalars;
mod workers;

pub(super) use self::field::{AT, At, FIELD, Field, Place};
pub(super) use self::lists::{List, NAMED, Named, OneOrMany, Tables};
pub(super) use self::maybe::MAYBE;
pub(super) use self::scalars::{DURATION, DURATION_OR_OFF, Off, SIZE, Size, Time};
pub(super) use self::workers::Workers;
