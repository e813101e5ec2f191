//! Tables whose names are not declared: `{ name = value, … }`.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor};

use super::At;
use super::maybe::Element;

/// The name by which [`Entries`] asks for its names and values.
pub(in crate::config) const ENTRIES: &str = "$entries";

/// Names with their values, in the order of the file. Those with a mistake are reported and left
/// out.
#[derive(Clone, Debug)]
pub(in crate::config) struct Entries<T>(Vec<(At<String>, At<T>)>);

impl<T> Deref for Entries<T> {
    type Target = [(At<String>, At<T>)];

    fn deref(&self) -> &[(At<String>, At<T>)] {
        &self.0
    }
}

impl<T: JsonSchema> JsonSchema for Entries<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        Cow::Owned(format!("Entries_{}", T::schema_name()))
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "additionalProperties": generator.subschema_for::<T>(),
            "minProperties": 1,
            "x-type": "table of strings",
        })
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Entries<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for All<T> {
            type Value = Entries<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries<T>, A::Error> {
                let mut entries = Vec::new();
                while let Some((name, Element(value))) = map.next_entry::<_, Element<At<T>>>()? {
                    entries.extend(value.map(|value| (name, value)));
                }
                // `read` refuses a table that is empty in the file. An error without a text is
                // reported already.
                if entries.is_empty() { Err(A::Error::custom("")) } else { Ok(Entries(entries)) }
            }
        }

        deserializer.deserialize_newtype_struct(ENTRIES, All(PhantomData))
    }
}
