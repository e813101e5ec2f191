//! Lists of values, lists of tables, and tables by name.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::At;

/// The name by which an element of a list asks for its value.
pub(in crate::config) const ELEMENT: &str = "$element";
/// The name by which [`OneOrMany`] asks for its elements.
pub(in crate::config) const ONE_OR_MANY: &str = "$one_or_many";
/// The name by which [`Tables`] asks for its tables.
pub(in crate::config) const TABLES: &str = "$tables";
/// The name by which [`Named`] asks for its tables.
pub(in crate::config) const NAMED: &str = "$named";

/// A list of values. Those with a mistake are reported and left out.
#[derive(Clone, Debug)]
pub(in crate::config) struct List<T>(Vec<At<T>>);

/// A [`List`], or one value in place of a list of one.
#[derive(Clone, Debug)]
pub(in crate::config) struct OneOrMany<T>(Vec<At<T>>);

/// `[[key]]`; empty if there is none.
#[derive(Clone, Debug)]
pub(in crate::config) struct Tables<T>(Vec<T>);

/// `[key.NAME]`, sorted by name.
#[derive(Clone, Debug)]
pub(in crate::config) struct Named<T> {
    pub(in crate::config) tables: Vec<(At<String>, T)>,
    /// Whether these are all tables: none is under a key that is misspelt or of the wrong type.
    pub(in crate::config) complete: bool,
}

impl<T> Deref for List<T> {
    type Target = [At<T>];

    fn deref(&self) -> &[At<T>] {
        &self.0
    }
}

impl<T> Deref for OneOrMany<T> {
    type Target = [At<T>];

    fn deref(&self) -> &[At<T>] {
        &self.0
    }
}

impl<T> Default for Tables<T> {
    fn default() -> Self {
        Tables(Vec::new())
    }
}

impl<T> Default for Named<T> {
    fn default() -> Self {
        Named { tables: Vec::new(), complete: true }
    }
}

impl<T> Deref for Tables<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T> IntoIterator for Tables<T> {
    type Item = T;
    type IntoIter = std::vec::IntoIter<T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<T: JsonSchema> JsonSchema for List<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        Cow::Owned(format!("List_{}", T::schema_name()))
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let items = generator.subschema_for::<T>();
        json_schema!({ "type": "array", "items": items, "minItems": 1 })
    }
}

impl<T: JsonSchema> JsonSchema for OneOrMany<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        Cow::Owned(format!("OneOrMany_{}", T::schema_name()))
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<T>();
        json_schema!({ "anyOf": [one, { "type": "array", "items": one, "minItems": 1 }] })
    }
}

impl<T: JsonSchema> JsonSchema for Tables<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        Cow::Owned(format!("Tables_{}", T::schema_name()))
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "array", "items": generator.subschema_for::<T>() })
    }
}

impl<T: JsonSchema> JsonSchema for Named<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        Cow::Owned(format!("Named_{}", T::schema_name()))
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "propertyNames": { "pattern": "^[A-Za-z0-9_.-]{1,64}$" },
            "additionalProperties": generator.subschema_for::<T>(),
        })
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Elements(PhantomData)).map(List)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(ONE_OR_MANY, Elements(PhantomData)).map(OneOrMany)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Tables<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(TABLES, Elements(PhantomData)).map(Tables)
    }
}

/// Collects all valid elements.
pub(super) struct Elements<T>(pub(super) PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Elements<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Vec<T>, A::Error> {
        let mut list = Vec::new();
        while let Some(Element(element)) = elements.next_element()? {
            list.extend(element);
        }
        Ok(list)
    }
}

/// A valid element of a list; `None` for one that was reported.
struct Element<T>(Option<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Element<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Part<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Part<T> {
            type Value = Element<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an element")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut part: A) -> Result<Element<T>, A::Error> {
                part.next_element().map(Element)
            }
        }

        deserializer.deserialize_newtype_struct(ELEMENT, Part(PhantomData))
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Named<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Parts<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Parts<T> {
            type Value = Named<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("tables by name")
            }

            /// `read` gives no size exactly if tables may be missing.
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Named<T>, A::Error> {
                let complete = map.size_hint().is_some();
                let mut tables: Vec<(At<String>, T)> = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    tables.push(entry);
                }
                tables.sort_by(|(one, _), (other, _)| one.value.cmp(&other.value));
                Ok(Named { tables, complete })
            }
        }

        deserializer.deserialize_newtype_struct(NAMED, Parts(PhantomData))
    }
}
