//! Reads a table: compares its keys with the declaration and gives the declared ones to serde.

use serde::de::value::BorrowedStrDeserializer;
use serde::de::{DeserializeSeed, MapAccess};
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::mistake::Mistake;
use super::parts::Pair;
use super::value::Value;
use crate::config::contract::{Key, Kind, Table, When, root};
use crate::config::report::{closest, quoted};

/// The fields of a struct. Each of them is given, with or without a value, so that serde misses
/// none.
pub(super) struct TableEntries<'a> {
    table: Declared<'a>,
    fields: std::slice::Iter<'static, &'static str>,
    next: &'static str,
    place: Pair<bool>,
}

impl<'a> TableEntries<'a> {
    /// Reports unknown keys, missing keys, and keys that do not apply.
    pub(super) fn new(
        value: Value<'a>,
        fields: &'static [&'static str],
    ) -> Result<TableEntries<'a>, Mistake> {
        let default = value.default.map(Spanned::get_ref);
        let keys = match (value.item.map(Spanned::get_ref), default) {
            (Some(DeValue::Table(keys)), _) => keys,
            // A table that was left out has the defaults of all its keys.
            (None, Some(DeValue::Table(none))) => none,
            (Some(_), Some(DeValue::Table(none))) => {
                value.report(value.wrong_type("a table"));
                none
            }
            _ => return Err(value.wrong_type("a table")),
        };
        let Some(declaration) = value.key.table() else { return Err(value.wrong_type("a value")) };
        let table = Declared { value, keys, declaration };
        let complete = table.report_unknown();
        table.report_missing();
        table.report_misplaced();
        let place = Pair(value.span(), complete);
        Ok(TableEntries { table, fields: fields.iter(), next: "", place })
    }
}

impl<'a> MapAccess<'a> for TableEntries<'a> {
    type Error = Mistake;

    fn next_key_seed<S: DeserializeSeed<'a>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Mistake> {
        let Some(next) = self.fields.next() else { return Ok(None) };
        self.next = next;
        seed.deserialize(BorrowedStrDeserializer::new(next)).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'a>>(&mut self, seed: S) -> Result<S::Value, Mistake> {
        match self.table.declaration.key(self.next) {
            Some(key) => seed.deserialize(self.table.value_of(key)),
            // The only field that is no key.
            None => seed.deserialize(self.place),
        }
    }
}

/// A table of the file and its declaration.
#[derive(Clone, Copy)]
struct Declared<'a> {
    value: Value<'a>,
    keys: &'a DeTable<'a>,
    declaration: &'static Table,
}

impl<'a> Declared<'a> {
    /// The value of a key. An empty list of tables counts as left out.
    fn get(self, key: &str) -> Option<&'a DeValue<'a>> {
        let value = self.keys.get(key).map(Spanned::get_ref)?;
        self.declaration.counts(key, value).then_some(value)
    }

    fn value_of(self, key: &'static Key) -> Value<'a> {
        let entry = self.keys.get_key_value(key.name.as_str());
        Value {
            report: self.value.report,
            key,
            name: entry.map(|(name, _)| name.span().into()),
            item: entry.map(|(_, value)| value),
            default: key.default_in(self.declaration, |key| self.get(key)),
            element: false,
            misspelt: self.may_be_misspelt(key, entry.map(|(_, value)| value.get_ref())),
            called: None,
        }
    }

    /// Reports unknown keys. Returns false if there are any.
    fn report_unknown(self) -> bool {
        let mut complete = true;
        for (key, _) in self.keys {
            let name: &str = key.get_ref();
            if self.declaration.key(name).is_some() {
                continue;
            }
            complete = false;
            let (what, note) = if self.declaration.planned.iter().any(|planned| planned == name) {
                let header = self.value.header();
                let what = format!("`{name}` in {header} is not available in this version");
                (what, String::from("a later version brings it: remove it"))
            } else {
                let what = format!("unknown key {} in {}", quoted(name), self.value.header());
                (what, self.known_keys(name))
            };
            self.value.report.error(key.span().into(), what, note);
        }
        complete
    }

    /// The note for an unknown key.
    fn known_keys(self, name: &str) -> String {
        let mut known: Vec<&str> =
            self.declaration.keys.iter().map(|key| key.name.as_str()).collect();
        known.sort_unstable();
        match self.declaration.foreign.get(name) {
            Some(advice) if advice.contains(' ') => return advice.clone(),
            Some(own) => return format!("write `{own}`"),
            None => {}
        }
        if let Some(meant) = closest(name, known.iter().copied()) {
            return format!("did you mean `{meant}`?");
        }
        let all = format!("known keys: {}", known.join(", "));
        match elsewhere(name) {
            Some(header) => format!(
                "`{name}` is a key of {header}, and a key belongs to the header above it\n{all}"
            ),
            None => all,
        }
    }

    /// Returns true when the table has an unknown key that is probably meant to be this one: it is
    /// misspelt, or another program calls it so.
    fn is_misspelt(self, key: &Key) -> bool {
        let unknown = |name: &&str| self.declaration.key(name).is_none();
        let mut unknown = self.keys.keys().map(|name| -> &str { name.get_ref() }).filter(unknown);
        let foreign = &self.declaration.foreign;
        unknown.any(|name| {
            foreign.get(name) == Some(&key.name) || closest(name, [key.name.as_str()]).is_some()
        })
    }

    /// Returns true when a list of tables, or tables by name, may stand under a misspelt header.
    /// `[[keys]]` followed by `[[key.sub]]` makes a table `key` with no key but `sub`.
    fn may_be_misspelt(self, key: &Key, value: Option<&DeValue<'_>>) -> bool {
        match (&key.kind, value) {
            (Kind::Named(_) | Kind::Tables(_), None) => self.is_misspelt(key),
            (Kind::Named(_), Some(_)) => self.is_misspelt(key),
            (Kind::Tables(_), Some(DeValue::Table(_))) => self.is_misspelt(key),
            _ => false,
        }
    }

    /// Reports required keys that were left out and are not misspelt.
    fn report_missing(self) {
        for key in &self.declaration.keys {
            let Some(note) = &key.required else { continue };
            let left_out = self.get(&key.name).is_none();
            let applies = self.unmet(key).is_ok_and(|unmet| unmet.is_none());
            if left_out && applies && !self.is_misspelt(key) {
                let with = |when: &When| {
                    let value = self.get(when.key())?.as_str()?;
                    Some(format!(" with {} = \"{value}\"", when.key()))
                };
                let with = key.when.first().and_then(with).unwrap_or_default();
                let what = format!("{}{with} needs {}", self.value.header(), key.title());
                self.value.report.error(self.value.span(), what, note);
            }
        }
    }

    /// Reports keys that are given but do not apply.
    fn report_misplaced(self) {
        for key in &self.declaration.keys {
            let Some((name, value)) = self.keys.get_key_value(key.name.as_str()) else { continue };
            let Ok(Some(when)) = self.unmet(key) else { continue };
            let place = match (&key.kind, value.get_ref()) {
                // The header of the first table.
                (Kind::Tables(_), DeValue::Array(tables)) => {
                    tables.iter().next().map_or(name.span(), Spanned::span)
                }
                _ => name.span(),
            };
            let note = when.note(self.declaration, self.get(when.key()));
            let what = when.refusal(key, self.declaration);
            self.value.report.error(place.into(), what, note);
        }
    }

    /// The first condition of the key that does not hold, if there is one. An error if it is
    /// unknown whether one holds.
    fn unmet(self, key: &'static Key) -> Result<Option<&'static When>, ()> {
        for when in &key.when {
            match when.holds(self.declaration, |key| self.get(key)) {
                Some(true) => {}
                Some(false) => return Ok(Some(when)),
                None => return Err(()),
            }
        }
        Ok(None)
    }
}

/// The header of the first table that has a key of this name.
fn elsewhere(name: &str) -> Option<&'static str> {
    let mut left: Vec<&'static Table> = root().table().into_iter().collect();
    while let Some(table) = left.pop() {
        if table.key(name).is_some_and(|key| matches!(key.kind, Kind::Value)) {
            return Some(&table.header);
        }
        left.extend(table.keys.iter().rev().filter_map(Key::table));
    }
    None
}

/// The tables of `[key.NAME]`. What is no table is reported and left out.
pub(super) struct NamedEntries<'a> {
    tables: Value<'a>,
    left: std::vec::IntoIter<(&'a Spanned<DeString<'a>>, &'a Spanned<DeValue<'a>>)>,
    next: Option<Value<'a>>,
    complete: bool,
}

impl<'a> NamedEntries<'a> {
    pub(super) fn new(tables: Value<'a>) -> Self {
        let mut complete = !tables.misspelt;
        let mut named = Vec::new();
        match tables.item.map(Spanned::get_ref) {
            None => {}
            Some(DeValue::Table(entries)) => {
                for (name, value) in entries {
                    if matches!(value.get_ref(), DeValue::Table(_)) {
                        named.push((name, value));
                    } else {
                        not_a_table(tables, name);
                    }
                }
            }
            Some(_) => {
                tables.report(tables.wrong_type("a table"));
                complete = false;
            }
        }
        NamedEntries { tables, left: named.into_iter(), next: None, complete }
    }
}

fn not_a_table(tables: Value<'_>, name: &Spanned<DeString<'_>>) {
    let what = quoted(&format!("{}.{}", tables.key.name, name.get_ref()));
    let note = format!("write {} with the keys below it", tables.header());
    tables.report.error(name.span().into(), format!("{what} is not a table"), note);
}

impl<'a> MapAccess<'a> for NamedEntries<'a> {
    type Error = Mistake;

    fn next_key_seed<S: DeserializeSeed<'a>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Mistake> {
        let Some((name, value)) = self.left.next() else { return Ok(None) };
        let called = Some(name.get_ref().as_ref());
        self.next = Some(Value { item: Some(value), called, ..self.tables });
        seed.deserialize(Pair(name.span().into(), name.get_ref().as_ref())).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'a>>(&mut self, seed: S) -> Result<S::Value, Mistake> {
        seed.deserialize(self.next.take().unwrap_or(self.tables))
    }

    /// `None` if tables may be missing.
    fn size_hint(&self) -> Option<usize> {
        self.complete.then_some(self.left.len())
    }
}
