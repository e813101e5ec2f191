//! A key with the value that it has or would have, and positions in the file.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{Deserialize, Deserializer, SeqAccess, Visitor};

use crate::config::span::Span;

/// The name by which a [`Field`] asks for its parts: the position of the key, the value, and the
/// default.
pub(in crate::config) const FIELD: &str = "$field";
/// The name by which an [`At`] asks for its parts: the position and the value.
pub(in crate::config) const AT: &str = "$at";

/// A key of a table: left out, given and valid, or given and already reported.
#[derive(Clone, Debug)]
pub(in crate::config) struct Field<T> {
    /// The position of the key. `None` if it was left out.
    pub(in crate::config) key: Option<Span>,
    /// The value in the file. `None` if the key was left out or reported.
    pub(in crate::config) value: Option<At<T>>,
    /// The declared default. `None` if there is none.
    default: Option<T>,
}

/// A value and its position.
#[derive(Clone, Debug)]
pub(in crate::config) struct At<T> {
    pub(in crate::config) value: T,
    pub(in crate::config) span: Span,
}

/// The position of a table, and whether all its keys are known. If so, a missing key was not
/// misspelt.
#[derive(Clone, Copy, Debug)]
pub(in crate::config) struct Place {
    /// Its header, or the whole of an inline table.
    pub(in crate::config) span: Span,
    pub(in crate::config) complete: bool,
}

impl<T> Default for Field<T> {
    /// A key that was left out.
    fn default() -> Self {
        Field { key: None, value: None, default: None }
    }
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

impl Default for Place {
    fn default() -> Self {
        Place { span: Span { start: 0, end: 0 }, complete: true }
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

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Field<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Parts<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Parts<T> {
            type Value = Field<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the parts of a key")
            }

            /// `read` gives each part, or `None` for one that does not exist.
            fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Field<T>, A::Error> {
                Ok(Field {
                    key: parts.next_element()?,
                    value: parts.next_element()?,
                    default: parts.next_element()?,
                })
            }
        }

        deserializer.deserialize_newtype_struct(FIELD, Parts(PhantomData))
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for At<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Parts<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Parts<T> {
            type Value = At<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value and its position")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<At<T>, A::Error> {
                let span = parts.next_element()?.unwrap_or(Span { start: 0, end: 0 });
                match parts.next_element()? {
                    Some(value) => Ok(At { value, span }),
                    None => Err(serde::de::Error::invalid_length(1, &self)),
                }
            }
        }

        deserializer.deserialize_newtype_struct(AT, Parts(PhantomData))
    }
}

impl<'de> Deserialize<'de> for Place {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Parts;

        impl<'de> Visitor<'de> for Parts {
            type Value = Place;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the position of a table")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Place, A::Error> {
                let span = parts.next_element()?.unwrap_or(Span { start: 0, end: 0 });
                Ok(Place { span, complete: parts.next_element()?.unwrap_or(true) })
            }
        }

        deserializer.deserialize_newtype_struct("$place", Parts)
    }
}
