//! Makes the declarations of all keys from the schema.
//!
//! The schema comes from our own declarations. What cannot be read here is a mistake in one of
//! them, which every test and every start would show: hence the panics.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use serde::de::DeserializeOwned;
use serde_json::Value;
use toml::de::DeValue;

use super::schema::declared;
use super::{Key, Kind, Literal, Table, When, Word};
use crate::config::units;

/// The file as a key without a name.
pub(super) fn root() -> Key {
    let schema = declared();
    let Some(Value::Object(definitions)) = schema.get("$defs") else {
        unreachable!("the schema has definitions")
    };
    let build = Build { definitions };
    let root = Value::Object(schema.clone());
    let mut key = build.key("", &root, "");
    key.kind = Kind::Table(build.table(&root, String::from("the file"), ""));
    key
}

struct Build<'s> {
    definitions: &'s serde_json::Map<String, Value>,
}

impl<'s> Build<'s> {
    /// `path` is the path of the table that has the key.
    fn key(&self, name: &str, property: &'s Value, path: &str) -> Key {
        let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        let inner = self.innermost(property);
        let words = words_of(inner);
        // A table has planned keys under the same keyword.
        let planned_words = if words.is_empty() { Vec::new() } else { parsed(inner, "x-planned") };
        Key {
            name: name.to_owned(),
            kind: self.kind(name, property, &path),
            default: property.get("default").map(literal),
            defaults: parsed::<Vec<(When, Value)>>(property, "x-defaults")
                .into_iter()
                .map(|(when, default)| (when, literal(&default)))
                .collect(),
            inherits: property.get("x-inherits").is_some(),
            range: range(property),
            step_ms: limit(property, "x-step").unwrap_or(1),
            advice: text(property, "x-advice"),
            one_or_many: property.get("x-one-or-many").is_some(),
            empty: text(property, "x-empty"),
            required: text(property, "x-required"),
            when: parsed(property, "x-when"),
            words,
            planned_words,
            foreign_words: parsed::<BTreeMap<String, String>>(inner, "x-foreign"),
            schema: property.clone(),
        }
    }

    fn kind(&self, name: &str, property: &'s Value, path: &str) -> Kind {
        let is_table = |schema: &&Value| schema.get("properties").is_some();
        if let Some(table) = self.followed(property).filter(is_table) {
            let inline = table.get("x-inline").is_some();
            let header = if inline { format!("{name} = {{ … }}") } else { format!("[{path}]") };
            Kind::Table(self.table(table, header, path))
        } else if let Some(table) =
            property.get("items").and_then(|items| self.followed(items)).filter(is_table)
        {
            Kind::Tables(self.table(table, format!("[[{path}]]"), path))
        } else if let Some(table) =
            property.get("additionalProperties").and_then(|other| self.followed(other))
            && is_table(&table)
        {
            Kind::Named(self.table(table, format!("[{path}.NAME]"), path))
        } else {
            Kind::Value
        }
    }

    fn table(&self, schema: &'s Value, header: String, path: &str) -> Table {
        let properties = schema.get("properties").and_then(Value::as_object);
        let keys = properties.into_iter().flatten();
        Table {
            header,
            description: text(schema, "description").unwrap_or_default(),
            keys: keys.map(|(name, property)| self.key(name, property, path)).collect(),
            planned: parsed(schema, "x-planned"),
            foreign: parsed(schema, "x-foreign"),
        }
    }

    /// The definition that a schema refers to, if it does.
    fn followed(&self, schema: &'s Value) -> Option<&'s Value> {
        let name = schema.get("$ref")?.as_str()?.strip_prefix("#/$defs/")?;
        self.definitions.get(name)
    }

    /// The schema of a value, or of the elements of a list.
    fn innermost(&self, property: &'s Value) -> &'s Value {
        let inner = property.get("items").unwrap_or(property);
        self.followed(inner).unwrap_or(inner)
    }
}

/// The words of an enum, which `schemars` lists under `oneOf`.
fn words_of(schema: &Value) -> Vec<Word> {
    let all = schema.get("oneOf").and_then(Value::as_array).into_iter().flatten();
    let word = |one: &Value| {
        let meaning = text(one, "description").unwrap_or_default();
        Some(Word { word: text(one, "const")?, meaning })
    };
    all.filter_map(word).collect()
}

fn text(schema: &Value, keyword: &str) -> Option<String> {
    schema.get(keyword).and_then(Value::as_str).map(str::to_owned)
}

/// What stands under a keyword, or nothing.
fn parsed<T: DeserializeOwned + Default>(schema: &Value, keyword: &str) -> T {
    let read = |value: &Value| T::deserialize(value).expect("the keyword has this form");
    schema.get(keyword).map(read).unwrap_or_default()
}

fn range(property: &Value) -> RangeInclusive<u64> {
    let number = |keyword| property.get(keyword).and_then(Value::as_u64);
    let low = number("minimum").or_else(|| limit(property, "x-min")).unwrap_or(0);
    low..=number("maximum").or_else(|| limit(property, "x-max")).unwrap_or(u64::MAX)
}

/// A limit of a size in bytes, or of a duration in milliseconds.
fn limit(property: &Value, keyword: &str) -> Option<u64> {
    let text = property.get(keyword)?.as_str()?;
    let duration = units::duration(text).ok().map(|time| time.as_millis());
    let time_ms = duration.and_then(|time_ms| u64::try_from(time_ms).ok());
    Some(time_ms.or(units::size(text).ok()).expect("a limit is a size or a duration"))
}

/// A value of JSON that is also one of TOML: text, a number, true or false, a list, or `{}`. The
/// declarations live as long as the process, and so does the text of a default.
fn literal(value: &Value) -> Literal {
    let text: &'static str = value.to_string().leak();
    DeValue::parse(text).expect("a default is a value of TOML, too")
}
