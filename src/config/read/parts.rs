//! The parts of the types in `types`, and the elements of lists.

use serde::de::value::{SeqAccessDeserializer, SeqDeserializer};
use serde::de::{DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;
use toml::Spanned;
use toml::de::{DeArray, DeString, DeTable, DeValue};

use super::mistake::Mistake;
use super::value::Value;
use crate::config::report::Span;

/// Gives a position to a type that serde derives from two numbers.
fn give_span<'a, S: DeserializeSeed<'a>>(seed: S, span: Span) -> Result<S::Value, Mistake> {
    seed.deserialize(SeqDeserializer::new([span.start, span.end].into_iter()))
}

/// A value that may be missing. A value with a mistake is reported and missing.
pub(super) struct Reported<'a>(pub(super) Option<Value<'a>>);

impl<'a> SeqAccess<'a> for Reported<'a> {
    type Error = Mistake;

    fn next_element_seed<S: DeserializeSeed<'a>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Mistake> {
        let Some(value) = self.0.take() else { return Ok(None) };
        Ok(seed.deserialize(value).map_err(|mistake| value.report(mistake)).ok())
    }
}

/// The parts of a `Field`: the position of the key, the value, and the default.
pub(super) struct FieldParts<'a> {
    value: Value<'a>,
    given: usize,
}

impl<'a> FieldParts<'a> {
    pub(super) fn new(value: Value<'a>) -> Self {
        FieldParts { value, given: 0 }
    }
}

impl<'a> SeqAccess<'a> for FieldParts<'a> {
    type Error = Mistake;

    fn next_element_seed<S: DeserializeSeed<'a>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Mistake> {
        self.given += 1;
        let value = self.value;
        match self.given {
            1 => seed.deserialize(SeqAccessDeserializer::new(KeyPosition(value.name))),
            2 => seed.deserialize(value),
            _ => seed.deserialize(value.default_alone()),
        }
        .map(Some)
    }
}

/// The elements of a list.
pub(super) struct Elements<'a> {
    list: Value<'a>,
    left: std::slice::Iter<'a, Spanned<DeValue<'a>>>,
}

impl<'a> Elements<'a> {
    pub(super) fn of(list: Value<'a>, items: &'a DeArray<'a>) -> Self {
        Elements { list, left: items.iter() }
    }

    /// The value itself, as the only element.
    pub(super) fn only(list: Value<'a>) -> Self {
        Elements { list, left: list.item.map_or(&[][..], std::slice::from_ref).iter() }
    }

    pub(super) fn none(list: Value<'a>) -> Self {
        Elements { list, left: [].iter() }
    }
}

impl<'a> SeqAccess<'a> for Elements<'a> {
    type Error = Mistake;

    fn next_element_seed<S: DeserializeSeed<'a>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Mistake> {
        self.left.next().map(|item| seed.deserialize(self.list.with_element(item))).transpose()
    }
}

/// The names and values of a table whose names are not declared.
pub(super) struct Entries<'a> {
    table: Value<'a>,
    left: Vec<(&'a Spanned<DeString<'a>>, &'a Spanned<DeValue<'a>>)>,
    next: Option<Value<'a>>,
}

impl<'a> Entries<'a> {
    pub(super) fn of(table: Value<'a>, entries: &'a DeTable<'a>) -> Self {
        let mut left: Vec<_> = entries.iter().collect();
        left.reverse();
        Entries { table, left, next: None }
    }
}

impl<'a> MapAccess<'a> for Entries<'a> {
    type Error = Mistake;

    fn next_key_seed<S: DeserializeSeed<'a>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Mistake> {
        let Some((name, value)) = self.left.pop() else { return Ok(None) };
        self.next = Some(self.table.with_element(value));
        seed.deserialize(Pair(name.span().into(), name.get_ref().as_ref())).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'a>>(&mut self, seed: S) -> Result<S::Value, Mistake> {
        seed.deserialize(self.next.take().unwrap_or(self.table))
    }
}

/// The position of a key, which may be missing.
struct KeyPosition(Option<Span>);

impl<'a> SeqAccess<'a> for KeyPosition {
    type Error = Mistake;

    fn next_element_seed<S: DeserializeSeed<'a>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Mistake> {
        self.0.take().map(|span| give_span(seed, span)).transpose()
    }
}

/// A position and what stands there, for `At`, `Place` and the names of tables.
#[derive(Clone, Copy)]
pub(super) struct Pair<T>(pub(super) Span, pub(super) T);

impl<'a, T: IntoDeserializer<'a, Mistake>> Deserializer<'a> for Pair<T> {
    type Error = Mistake;

    fn deserialize_any<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Mistake> {
        visitor.visit_seq(PairParts { span: Some(self.0), second: Some(self.1) })
    }

    forward_to_deserialize_any! { <V: Visitor<'a>>
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier
        ignored_any
    }
}

struct PairParts<T> {
    span: Option<Span>,
    second: Option<T>,
}

impl<'a, T: IntoDeserializer<'a, Mistake>> SeqAccess<'a> for PairParts<T> {
    type Error = Mistake;

    fn next_element_seed<S: DeserializeSeed<'a>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Mistake> {
        if let Some(span) = self.span.take() {
            return give_span(seed, span).map(Some);
        }
        let second = self.second.take().map(IntoDeserializer::into_deserializer);
        second.map(|second| seed.deserialize(second)).transpose()
    }
}
