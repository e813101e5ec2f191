//! The text about one key: its type, range, default and conditions in words. The reference and the
//! manual page are made of it.

use serde_json::Value;

use super::{Key, Kind, Table, Word};

/// The version of ringgate that brought the first keys.
const FIRST_VERSION: &str = "0.1.0";

/// The facts about a key, each with its label.
pub(super) fn facts(key: &Key) -> Vec<(&'static str, String)> {
    let mut facts = vec![("type", type_of(key))];
    if let Some(range) = range_of(key) {
        facts.push(("range", range));
    }
    facts.push(("default", default_of(key)));
    for when in &key.when {
        facts.push(("only with", when.condition_in_code()));
    }
    let examples: Vec<String> = examples(key)
        .iter()
        .map(|example| format!("`{} = {}`", key.name, in_toml(example)))
        .collect();
    if !examples.is_empty() {
        facts.push(("example", examples.join(", ")));
    }
    if !key.planned_words.is_empty() {
        let words = key.planned_words.iter().map(|word| format!("`\"{word}\"`"));
        facts.push(("planned", words.collect::<Vec<_>>().join(", ")));
    }
    let since = key.schema.get("x-since").and_then(Value::as_str);
    facts.push(("since", since.unwrap_or(FIRST_VERSION).to_owned()));
    facts
}

/// The declared examples. For a word and for `true` or `false`, an example is a value that is not
/// the default.
pub(super) fn examples(key: &Key) -> Vec<Value> {
    if let Some(Value::Array(declared)) = key.schema.get("examples") {
        return declared.clone();
    }
    let default = key.schema.get("default");
    if let Some(Value::Bool(default)) = default {
        return vec![Value::Bool(!default)];
    }
    let other = |word: &&Word| default.and_then(Value::as_str) != Some(word.word.as_str());
    let word = key.words.iter().find(other).or(key.words.first());
    let is_list = matches!(default, Some(Value::Array(_)));
    let value = word.map(|word| Value::from(word.word.as_str()));
    value.map(|value| if is_list { Value::Array(vec![value]) } else { value }).into_iter().collect()
}

/// What the key means.
pub(super) fn meaning(key: &Key) -> String {
    let text = key.schema.get("description").and_then(Value::as_str).unwrap_or_default();
    one_line(text)
}

/// The paragraphs of a text, each on one line.
pub(super) fn paragraphs(text: &str) -> Vec<String> {
    text.split("\n\n").map(one_line).collect()
}

/// All tables of the file with their keys, the outer ones first. A table that stands under several
/// keys comes once, with the first of them.
pub(super) fn tables(root: &'static Table) -> Vec<&'static Table> {
    let mut all = Vec::new();
    collect(root, &mut all);
    all
}

fn collect(table: &'static Table, all: &mut Vec<&'static Table>) {
    if all.iter().any(|known: &&Table| known.description == table.description) {
        return;
    }
    all.push(table);
    table.keys.iter().filter_map(Key::table).for_each(|inner| collect(inner, all));
}

pub(super) fn one_line(text: &str) -> String {
    text.replace('\n', " ")
}

fn type_of(key: &Key) -> String {
    let unit = key.schema.get("x-unit").and_then(Value::as_str);
    let is_list = |schema: &Value| schema.get("type").and_then(Value::as_str) == Some("array");
    if let Some(own) = key.schema.get("x-type").and_then(Value::as_str) {
        return own.to_owned();
    }
    match &key.kind {
        Kind::Table(table) => format!("table, `{}`", table.header),
        Kind::Tables(table) => format!("list of tables, `{}`", table.header),
        Kind::Named(table) => format!("tables by name, `{}`", table.header),
        Kind::Value if is_list(&key.schema) && !key.words.is_empty() => {
            String::from("list of words")
        }
        Kind::Value if is_list(&key.schema) => String::from("list of strings"),
        Kind::Value if !key.words.is_empty() => String::from("word"),
        Kind::Value => match key.schema.get("type").and_then(Value::as_str) {
            Some("integer") => match unit {
                Some(unit) => format!("whole number of {unit}"),
                None => String::from("whole number"),
            },
            Some("boolean") => String::from("`true` or `false`"),
            Some("string") => String::from("string"),
            _ => String::from("string or list of strings"),
        },
    }
}

fn range_of(key: &Key) -> Option<String> {
    let limit = |keyword| key.schema.get(keyword).map(|limit| format!("`{}`", in_toml(limit)));
    if let (Some(low), Some(high)) = (limit("x-min"), limit("x-max")) {
        let step = limit("x-step").map(|step| format!(", multiples of {step}"));
        return Some(format!("{low} to {high}{}", step.unwrap_or_default()));
    }
    if key.schema.get("x-type").is_some() {
        return None;
    }
    if let Some(Value::Array(values)) = key.schema.get("enum") {
        let values: Vec<String> = values.iter().map(in_toml).collect();
        return Some(values.join(", "));
    }
    match key.range {
        _ if key.range == (0..=u64::MAX) => None,
        _ if *key.range.end() == u64::MAX => Some(format!("{} or more", key.range.start())),
        _ => Some(format!("{} to {}", key.range.start(), key.range.end())),
    }
}

fn default_of(key: &Key) -> String {
    let mut parts = Vec::new();
    match key.schema.get("default") {
        Some(Value::Object(_)) => parts.push(String::from("the defaults of its keys")),
        Some(default) => parts.push(format!("`{}`", in_toml(default))),
        None if key.required.is_some() && key.when.is_empty() => {
            return String::from("none; the key is required");
        }
        None if key.required.is_some() => {
            return String::from("none; the key is required where it applies");
        }
        None if key.inherits => parts.push(String::from("that of the table around this one")),
        None => return String::from("none"),
    }
    for (when, default) in &key.defaults {
        let value = default.get_ref().as_str().unwrap_or_default();
        parts.push(format!("`\"{value}\"` with {}", when.condition_in_code()));
    }
    parts.join("; ")
}

/// A value of JSON as it is written in TOML.
pub(super) fn in_toml(value: &Value) -> String {
    match value {
        Value::Array(items) => {
            format!("[{}]", items.iter().map(in_toml).collect::<Vec<_>>().join(", "))
        }
        Value::Object(entries) => {
            let entry = |(name, value): (&String, &Value)| {
                let is_bare = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
                let name =
                    if is_bare { name.clone() } else { Value::from(name.as_str()).to_string() };
                format!("{name} = {}", in_toml(value))
            };
            format!("{{ {} }}", entries.iter().map(entry).collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}
