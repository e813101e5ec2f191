//! A key with the value that it has or would have, and positions in the file.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;

use super::maybe::maybe;
use crate::config::span::Span;

/// The name by which serde's derive asks for the parts of a [`Field`].
pub(in crate::config) const FIELD: &str = "$field";
/// The name by which serde's derive asks for the parts of an [`At`].
pub(in crate::config) const AT: &str = "$at";

/// A key of a table: left out, given and valid, or given and already reported.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename = "$field", bound = "T: Deserialize<'de>")]
pub(in crate::config) struct Field<T> {
    /// The position of the key. `None` if it was left out.
    #[serde(deserialize_with = "maybe")]
    pub(in crate::config) key: Option<Span>,
    /// The value in the file. `None` if the key was left out or reported.
    #[serde(deserialize_with = "maybe")]
    pub(in crate::config) value: Option<At<T>>,
    /// The declared default. `None` if there is none.
    #[serde(deserialize_with = "maybe")]
    default: Option<T>,
}

/// A value and its position.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename = "$at")]
pub(in crate::config) struct At<T> {
    pub(in crate::config) span: Span,
    pub(in crate::config) value: T,
}

/// The position of a table, and whether all its keys are known. If so, a missing key was not
/// misspelt.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(in crate::config) struct Place {
    /// Its header, or the whole of an inline table.
    pub(in crate::config) span: Span,
    pub(in crate::config) complete: bool,
}

impl<T> Field<T> {
    pub(in crate::config) fn is_given(&self) -> bool {
        self.key.is_some()
    }

    /// The value in the file, if there is a valid one.
    pub(in crate::config) fn as_ref(&self) -> Option<&T> {
        self.value.as_ref().map(|at| &at.value)
    }

    /// The value in the file or the default; `None` if there is neither.
    pub(in crate::config) fn effective(&self) -> Option<&T> {
        self.as_ref().or(self.default.as_ref())
    }
}

impl<T: Clone> Field<T> {
    /// The value in the file, or else the default, for keys that are declared with one.
    pub(in crate::config) fn get(&self) -> T {
        self.effective().cloned().expect("the key is declared with a default")
    }
}

/// Both wrappers have the schema of the value that they hold.
macro_rules! has_the_schema_of_its_value {
    ($wrapper:ident) => {
        impl<T: JsonSchema> JsonSchema for $wrapper<T> {
            fn inline_schema() -> bool {
                T::inline_schema()
            }

            fn schema_name() -> Cow<'static, str> {
                T::schema_name()
            }

            fn schema_id() -> Cow<'static, str> {
                T::schema_id()
            }

            fn json_schema(generator: &mut SchemaGenerator) -> Schema {
                T::json_schema(generator)
            }
        }
    };
}

has_the_schema_of_its_value!(Field);
has_the_schema_of_its_value!(At);
