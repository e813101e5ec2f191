//! A value as serde asks for it.

use serde::de::value::StrDeserializer;
use serde::de::{Deserializer, Error as _, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;
use toml::Spanned;
use toml::de::{DeArray, DeValue};

use super::mistake::Mistake;
use super::parts::{Elements, Entries, FieldParts, Pair, Reported};
use super::scalars;
use super::table::{NamedEntries, TableEntries};
use super::value::{A_LIST, A_STRING_OR_LIST, Value, unexpected};
use crate::config::contract::{Kind, Table};
use crate::config::report::one_of;
use crate::config::types;

impl<'a> Value<'a> {
    /// The elements of a list, which is not empty.
    fn list<V: Visitor<'a>>(self, items: &'a DeArray<'a>, visitor: V) -> Result<V::Value, Mistake> {
        if items.is_empty() {
            return Err(self.empty("list"));
        }
        visitor.visit_seq(Elements::of(self, items))
    }

    /// The mistake that a list or table is empty.
    fn empty(self, kind: &str) -> Mistake {
        let note = self.key.empty.clone().or(self.key.advice.clone()).unwrap_or_default();
        Mistake::Other { what: format!("`{}` is an empty {kind}", self.key.name), note }
    }

    /// The tables of `[[key]]`; none if the key was left out.
    fn tables<V: Visitor<'a>>(self, table: &Table, visitor: V) -> Result<V::Value, Mistake> {
        match self.item.map(Spanned::get_ref) {
            None => {}
            Some(DeValue::Array(items)) => return visitor.visit_seq(Elements::of(self, items)),
            // `[[keys]]` followed by `[[key.sub]]` makes a table `key` with no key but `sub`.
            Some(DeValue::Table(_)) if self.misspelt => {}
            Some(DeValue::Table(_)) => {
                let what = format!("`{}` must be a list of tables", self.key.name);
                self.report.error(self.span(), what, format!("write {}", table.header));
                // The table is read anyway, so that its errors are reported, too.
                return visitor.visit_seq(Elements::only(self));
            }
            Some(_) => self.report(self.wrong_type("a list of tables")),
        }
        visitor.visit_seq(Elements::none(self))
    }
}

impl<'a> IntoDeserializer<'a, Mistake> for Value<'a> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'a> Deserializer<'a> for Value<'a> {
    type Error = Mistake;

    /// Each of the types of `types` asks by its own name.
    fn deserialize_newtype_struct<V: Visitor<'a>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        match name {
            types::MAYBE => visitor.visit_seq(Reported(self.item.map(|_| self))),
            types::NAMED => visitor.visit_map(NamedEntries::new(self)),
            types::DURATION => visitor.visit_u64(scalars::duration_ms(self, false)?.unwrap_or(0)),
            types::DURATION_OR_OFF => match scalars::duration_ms(self, true)? {
                Some(time_ms) => visitor.visit_u64(time_ms),
                None => visitor.visit_unit(),
            },
            types::SIZE => visitor.visit_u64(scalars::size(self, false)?.unwrap_or(0)),
            types::SIZE_OR_OFF => match scalars::size(self, true)? {
                Some(bytes) => visitor.visit_u64(bytes),
                None => visitor.visit_unit(),
            },
            types::ENTRIES => match self.content()? {
                DeValue::Table(entries) if entries.is_empty() => Err(self.empty("table")),
                DeValue::Table(entries) => visitor.visit_map(Entries::of(self, entries)),
                _ => Err(self.wrong_type("a table of strings")),
            },
            _ => visitor.visit_newtype_struct(self),
        }
    }

    fn deserialize_struct<V: Visitor<'a>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        match name {
            types::FIELD => visitor.visit_seq(FieldParts::new(self)),
            types::AT => Pair(self.span(), self).deserialize_any(visitor),
            _ => visitor.visit_map(TableEntries::new(self, fields)?),
        }
    }

    fn deserialize_enum<V: Visitor<'a>>(
        self,
        _name: &'static str,
        words: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        let DeValue::String(text) = self.content()? else {
            return Err(self.wrong_type(&one_of(words)));
        };
        if !words.contains(&text.as_ref()) {
            return Err(Mistake::unknown_variant(text, words));
        }
        let word: StrDeserializer<'_, Mistake> = text.as_ref().into_deserializer();
        visitor.visit_enum(word)
    }

    fn deserialize_string<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Mistake> {
        match self.content()? {
            DeValue::String(text) => visitor.visit_str(text),
            _ => Err(self.wrong_type("a string")),
        }
    }

    fn deserialize_bool<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Mistake> {
        match self.content()? {
            DeValue::Boolean(truth) => visitor.visit_bool(*truth),
            _ => Err(self.wrong_type("true or false")),
        }
    }

    fn deserialize_u64<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Mistake> {
        visitor.visit_u64(scalars::number(self)?)
    }

    fn deserialize_seq<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Mistake> {
        if let Kind::Tables(table) = &self.key.kind {
            return self.tables(table, visitor);
        }
        match self.content()? {
            DeValue::Array(items) => self.list(items, visitor),
            DeValue::String(_) if self.key.one_or_many => visitor.visit_seq(Elements::only(self)),
            _ if self.key.one_or_many => Err(self.wrong_type(A_STRING_OR_LIST)),
            _ => Err(self.wrong_type(A_LIST)),
        }
    }

    /// For types that accept values of several types.
    fn deserialize_any<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Mistake> {
        match self.content()? {
            DeValue::String(text) => visitor.visit_str(text),
            DeValue::Integer(_) => visitor.visit_u64(scalars::number(self)?),
            DeValue::Boolean(truth) => visitor.visit_bool(*truth),
            DeValue::Array(items) => self.list(items, visitor),
            other => Err(Mistake::invalid_type(unexpected(other), &visitor)),
        }
    }

    forward_to_deserialize_any! { <V: Visitor<'a>>
        i8 i16 i32 i64 i128 u8 u16 u32 u128 f32 f64 char str bytes byte_buf option unit
        unit_struct tuple tuple_struct map identifier ignored_any
    }
}
