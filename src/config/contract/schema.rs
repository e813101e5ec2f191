//! The JSON Schema of the file, for editors and validators (JSON Schema draft 2020-12).
//!
//! Its shape is made for editors. Taplo (Even Better TOML) completes no keys of a table with
//! `allOf`, and ignores what stands beside `$ref`. Tombi refuses keys that a part of a condition
//! does not name, unless the part allows them.

use schemars::schema_for;
use serde_json::{Map, Value, json};

use super::entry::{meaning, one_line, paragraphs};
use super::{Key, Kind, Table, When, Word, root, rules};
use crate::config::keys::File;

/// The schema as declared, with our own keywords. No key is required in it: `schemars` requires
/// every field that is not an `Option`.
pub(super) fn declared() -> Map<String, Value> {
    let Value::Object(mut schema) = schema_for!(File).to_value() else {
        unreachable!("the schema of a struct is an object")
    };
    schema.shift_remove("required");
    if let Some(Value::Object(definitions)) = schema.get_mut("$defs") {
        for definition in definitions.values_mut().filter_map(Value::as_object_mut) {
            definition.shift_remove("required");
        }
    }
    schema
}

/// The JSON Schema of the file, as text.
///
/// It has what an editor needs: names, types, ranges, defaults and texts. It refuses most files
/// that `ringgate check` refuses, but not all: references to names, addresses, and rules about
/// several tables are beyond it.
pub fn schema() -> String {
    let mut schema = declared();
    let Some(Value::Object(mut definitions)) = schema.shift_remove("$defs") else {
        unreachable!("the schema has definitions")
    };
    // The words of keys stand in the keys themselves.
    definitions.retain(|_, definition| definition.get("properties").is_some());
    if let Some(root) = root().table() {
        complete_table(&mut schema, root);
        complete_tables(&mut definitions, root, &mut Vec::new());
    }
    let mut ordered = Map::new();
    for first in ["$schema", "title", "description"] {
        ordered.extend(schema.shift_remove(first).map(|value| (first.to_owned(), value)));
    }
    ordered.extend(schema);
    ordered.insert(String::from("$defs"), Value::Object(definitions));
    let mut schema = Value::Object(ordered);
    each_object(&mut schema, &mut |object| {
        // The formats are names of types in Rust. A property may have the same name.
        let is_format = |keyword: &str, value: &Value| keyword == "format" && value.is_string();
        object.retain(|keyword, value| !keyword.starts_with("x-") && !is_format(keyword, value));
    });
    let text = serde_json::to_string_pretty(&schema).expect("a schema is JSON");
    format!("{text}\n")
}

/// Completes the definitions of the tables in this one. The same table may stand under several
/// keys.
fn complete_tables(
    definitions: &mut Map<String, Value>,
    table: &'static Table,
    done: &mut Vec<&'static str>,
) {
    for key in &table.keys {
        let Some((inner, name)) = key.table().zip(definition_of(&key.schema)) else { continue };
        if done.contains(&name) {
            continue;
        }
        done.push(name);
        if let Some(Value::Object(definition)) = definitions.get_mut(name) {
            complete_table(definition, inner);
        }
        complete_tables(definitions, inner, done);
    }
}

/// Adds to a table what is not a standard keyword in its declaration.
fn complete_table(schema: &mut Map<String, Value>, table: &'static Table) {
    if let Some(Value::String(text)) = schema.get_mut("description") {
        *text = paragraphs(text).join("\n\n");
    }
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        for key in &table.keys {
            if let Some(Value::Object(property)) = properties.get_mut(&key.name) {
                complete_key(property, key);
            }
        }
    }
    let is_never_empty = |key: &Key| key.schema.get("minItems").is_some();
    let always = |key: &&Key| {
        let is_list_of_tables = matches!(key.kind, Kind::Tables(_));
        let is_required = key.required.is_some() || is_list_of_tables && is_never_empty(key);
        is_required && key.when.is_empty()
    };
    let required: Vec<&str> =
        table.keys.iter().filter(always).map(|key| key.name.as_str()).collect();
    if !required.is_empty() {
        schema.insert(String::from("required"), json!(required));
    }
    let mut rules: Vec<Value> = Vec::new();
    if let Some(Value::Array(declared)) = schema.shift_remove("x-rules") {
        rules.extend(declared);
    }
    rules.extend(misplaced(table));
    rules.extend(missing(table));
    if !rules.is_empty() {
        // The condition always holds; it only keeps `allOf` out of the table itself.
        let always = json!({ "type": "object", "additionalProperties": true });
        schema.insert(String::from("if"), always);
        let then = json!({ "allOf": rules, "additionalProperties": true });
        schema.insert(String::from("then"), then);
    }
}

/// Completes the description of a key, adds its words, and that a required list of tables is not
/// empty.
fn complete_key(property: &mut Map<String, Value>, key: &Key) {
    let text = description(key);
    if !key.words.is_empty() {
        let words: Vec<&str> = key.words.iter().map(|word| word.word.as_str()).collect();
        let mut words = json!({ "type": "string", "enum": words });
        if property.contains_key("items") {
            words["description"] = json!(text);
            property.insert(String::from("items"), words);
        } else if let Value::Object(words) = words {
            property.shift_remove("$ref");
            property.extend(words);
        }
    }
    property.insert(String::from("description"), Value::String(text));
    if key.required.is_some() && matches!(key.kind, Kind::Tables(_)) {
        property.insert(String::from("minItems"), json!(1));
    }
}

/// The meaning of a key, with the facts that no keyword shows: its limits if they are no numbers,
/// its conditions and the meaning of its words.
fn description(key: &Key) -> String {
    let mut paragraphs = vec![meaning(key)];
    let limit = |keyword| key.schema.get(keyword).and_then(Value::as_str);
    if let (Some(low), Some(high)) = (limit("x-min"), limit("x-max")) {
        paragraphs.push(format!("From `\"{low}\"` to `\"{high}\"`."));
    }
    if !key.when.is_empty() {
        let conditions: Vec<String> = key.when.iter().map(When::sentence).collect();
        paragraphs.push(conditions.join(" "));
    }
    if !key.words.is_empty() {
        let word = |word: &Word| format!("- `\"{}\"`: {}", word.word, one_line(&word.meaning));
        paragraphs.push(key.words.iter().map(word).collect::<Vec<_>>().join("\n"));
    }
    paragraphs.join("\n\n")
}

/// Rules that refuse keys that do not apply, one for each condition.
fn misplaced(table: &'static Table) -> Vec<Value> {
    let mut conditions: Vec<(&When, Vec<&str>)> = Vec::new();
    for key in &table.keys {
        for when in &key.when {
            match conditions.iter_mut().find(|(known, _)| known.is_same_test(when)) {
                Some((_, keys)) => keys.push(&key.name),
                None => conditions.push((when, vec![&key.name])),
            }
        }
    }
    let rule = |(when, keys): (&When, Vec<&str>)| match when.fails_schema(table) {
        Some(fails) => json!({ "if": fails, "then": rules::none_of(&keys) }),
        // The condition is that another key is given, which is then said to be missing.
        None => json!({ "if": rules::some_of(&keys), "then": when.holds_schema(table) }),
    };
    conditions.into_iter().map(rule).collect()
}

/// Rules that require keys under a condition.
fn missing(table: &'static Table) -> Vec<Value> {
    let conditional = |key: &&Key| key.required.is_some() && !key.when.is_empty();
    let rule = |key: &Key| {
        let holds: Vec<Value> = key.when.iter().map(|when| when.holds_schema(table)).collect();
        json!({ "if": rules::all_of(holds), "then": { "required": [key.name] } })
    };
    table.keys.iter().filter(conditional).map(rule).collect()
}

/// The definition that a property refers to, itself or by its elements.
fn definition_of(property: &Value) -> Option<&str> {
    let elements = property.get("items").or_else(|| property.get("additionalProperties"));
    let schema = elements.unwrap_or(property);
    schema.get("$ref")?.as_str()?.strip_prefix("#/$defs/")
}

/// Calls a function with every object of a value, the outer ones first.
fn each_object(value: &mut Value, change: &mut impl FnMut(&mut Map<String, Value>)) {
    match value {
        Value::Object(object) => {
            change(object);
            object.values_mut().for_each(|inner| each_object(inner, change));
        }
        Value::Array(items) => items.iter_mut().for_each(|inner| each_object(inner, change)),
        _ => {}
    }
}
