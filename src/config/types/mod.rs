//! The types of keys in the file: a key with its position, lists and tables of them, durations and
//! sizes.
//!
//! `keys` declares the tables with these types, `read` fills them in. serde knows neither positions
//! nor defaults of single keys. So each type here asks the deserializer for itself by a name of its
//! own, as types like `toml::Spanned` do, and `read` answers with its parts.

mod field;
mod lists;
mod scalars;
mod workers;

pub(super) use self::field::{AT, At, FIELD, Field, Place};
pub(super) use self::lists::{ELEMENT, List, NAMED, Named, ONE_OR_MANY, OneOrMany, TABLES, Tables};
pub(super) use self::scalars::{DURATION, DURATION_OR_OFF, Off, SIZE, Size, Time};
pub(super) use self::workers::Workers;
