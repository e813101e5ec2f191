//! Lists of values, lists of tables, and tables by name.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};

use super::At;
use super::maybe::{some_valid, valid};

/// The name by which [`Named`] asks for its tables.
pub(in crate::config) const NAMED: &str = "$named";

/// The pattern of the names of tables.
pub(in crate::config) const NAME: &str = "^[A-Za-z0-9_.-]{1,64}$";

/// A list of values. Those with a mistake are reported and left out.
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent, bound = "T: Deserialize<'de>")]
pub(in crate::config) struct List<T>(#[serde(deserialize_with = "some_valid")] Vec<At<T>>);

/// A [`List`], or one value in place of a list of one.
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent, bound = "T: Deserialize<'de>")]
pub(in crate::config) struct OneOrMany<T>(#[serde(deserialize_with = "some_valid")] Vec<At<T>>);

/// `[[key]]`; empty if there is none.
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent, bound = "T: Deserialize<'de>")]
pub(in crate::config) struct Tables<T>(#[serde(deserialize_with = "valid")] Vec<T>);

/// `[key.NAME]`, sorted by name.
#[derive(Clone, Debug)]
pub(in crate::config) struct Named<T> {
    pub(in crate::config) tables: Vec<(At<String>, T)>,
    /// Whether these are all tables: none is under a key that is misspelt or of the wrong type.
    pub(in crate::config) complete: bool,
}

/// A list reads like a slice and has this schema, which takes the schema of an element.
macro_rules! is_a_list {
    ($list:ident of $element:ty, $name:literal, $schema:expr) => {
        impl<T> Deref for $list<T> {
            type Target = [$element];

            fn deref(&self) -> &[$element] {
                &self.0
            }
        }

        impl<T: JsonSchema> JsonSchema for $list<T> {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                Cow::Owned(format!($name, T::schema_name()))
            }

            fn json_schema(generator: &mut SchemaGenerator) -> Schema {
                let schema: fn(Schema) -> Schema = $schema;
                schema(generator.subschema_for::<T>())
            }
        }
    };
}

is_a_list!(List of At<T>, "List_{}", |item| {
    json_schema!({ "type": "array", "items": item, "minItems": 1 })
});
is_a_list!(OneOrMany of At<T>, "OneOrMany_{}", |item| {
    // Without `anyOf` a validator says what is wrong with the value.
    let list = "array".into();
    let types = [item.get("type"), Some(&list)];
    json_schema!({ "type": types, "items": item, "minItems": 1, "x-one-or-many": true })
});
is_a_list!(Tables of T, "Tables_{}", |item| json_schema!({ "type": "array", "items": item }));

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
            "propertyNames": { "pattern": NAME },
            "additionalProperties": generator.subschema_for::<T>(),
        })
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Named<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Entries<T> {
            type Value = Named<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("tables by name")
            }

            /// The size is unknown if tables may be missing.
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

        deserializer.deserialize_newtype_struct(NAMED, Entries(PhantomData))
    }
}
