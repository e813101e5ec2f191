//! Reads the tables of the file into the structs of `keys`, as a deserializer of serde.
//!
//! A deserializer stops at its first error. This one goes on, so that one run shows all errors: a
//! [`Field`], a list or a table is read even if a part of it is wrong. The part is reported here,
//! with its position, and counts as left out. Unknown and missing keys are found by comparing the
//! table with its declaration in `contract`, which also has the defaults.
//!
//! [`Field`]: super::types::Field

mod deserializer;
mod mistake;
mod parts;
mod scalars;
mod table;
mod value;

use serde::Deserialize;
use toml::Spanned;
use toml::de::DeValue;

use self::value::Value;
use super::keys::File;
use super::report::Report;

/// Reads the whole file, which is a table.
pub(super) fn read<'a>(report: &'a Report<'a>, file: &'a Spanned<DeValue<'a>>) -> File {
    let file = File::deserialize(Value::root(report, file));
    file.expect("a table of fields, lists and tables has no error of its own")
}
