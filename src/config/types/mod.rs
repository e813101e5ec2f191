//! The types of keys in the file: a key with its position, lists and tables of them, durations and
//! sizes.
//!
//! `keys` declares the tables with these types, `read` fills them in. serde knows neither positions
//! nor defaults of single keys. So these types ask the deserializer for themselves by names that
//! begin with `$`, as `toml::Spanned` does, and `read` gives them their parts.

/// Gives a type a schema that stands where the type is used.
macro_rules! has_schema {
    ($type:ident, $name:literal, $schema:expr) => {
        impl schemars::JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                std::borrow::Cow::Borrowed($name)
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                $schema
            }
        }
    };
}

mod entries;
mod field;
mod lists;
mod maybe;
mod scalars;
mod workers;

pub(super) use self::entries::{ENTRIES, Entries};
pub(super) use self::field::{AT, At, FIELD, Field, Place};
pub(super) use self::lists::{List, NAME, NAMED, Named, OneOrMany, Tables};
pub(super) use self::maybe::MAYBE;
pub(super) use self::scalars::{
    CountOrOff, DURATION, DURATION_OR_OFF, Off, SIZE, SIZE_OR_OFF, Size, SizeOrOff, Time,
};
pub(super) use self::workers::Workers;
