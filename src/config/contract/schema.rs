//! The JSON Schema of the file, for editors and validators (JSON Schema draft 2020-12).

use schemars::schema_for;
use serde_json::{Map, Value, json};

use super::entry::paragraphs;
use super::{Table, When, root};
use crate::config::keys::File;

/// The schema as declared, with our own keywords. No key is required in it: `schemars` requires
/// every field that is not an `Option`.
pub(super) fn declared() -> Map<String, Value> {
    let mut schema = schema_for!(File).to_value();
    each_object(&mut schema, &mut |object| {
        if object.contains_key("properties") {
            object.shift_remove("required");
        }
    });
    match schema {
        Value::Object(schema) => schema,
        _ => unreachable!("the schema of a struct is an object"),
    }
}

/// The JSON Schema of the file, as text.
///
/// It has what an editor needs: names, types, ranges, defaults and texts. It refuses most files
/// that `ringgate check` refuses, but not all: references to names, addresses, and rules about
/// several tables are beyond it.
pub fn schema() -> String {
    let mut schema = Value::Object(declared());
    require(&mut schema, root().table());
    each_object(&mut schema, &mut |object| {
        object.retain(|keyword, _| !keyword.starts_with("x-"));
        if let Some(Value::String(text)) = object.get_mut("description") {
            *text = paragraphs(text).join("\n\n");
        }
    });
    let Value::Object(mut rest) = schema else { unreachable!("the schema is an object") };
    let mut ordered = Map::new();
    for first in ["$schema", "title", "description"] {
        ordered.extend(rest.shift_remove(first).map(|value| (first.to_owned(), value)));
    }
    ordered.extend(rest);
    let text = serde_json::to_string_pretty(&ordered).expect("a schema is JSON");
    format!("{text}\n")
}

/// Adds required keys and conditions to every table.
fn require(schema: &mut Value, root: Option<&'static Table>) {
    let add = |schema: &mut Value, table: &'static Table| {
        let Value::Object(object) = schema else { return };
        let (required, conditional) = requirements(table);
        if !required.is_empty() {
            object.insert(String::from("required"), json!(required));
        }
        if !conditional.is_empty() {
            let all = object.entry("allOf").or_insert_with(|| json!([]));
            all.as_array_mut().expect("allOf is a list").extend(conditional);
        }
    };
    let Some(root) = root else { return };
    add(schema, root);
    let Some(Value::Object(definitions)) = schema.get_mut("$defs") else { return };
    let mut left: Vec<&'static Table> = vec![root];
    let mut done: Vec<&str> = Vec::new();
    while let Some(table) = left.pop() {
        for key in &table.keys {
            let (Some(inner), Some(name)) = (key.table(), definition_of(&key.schema)) else {
                continue;
            };
            // The same table may stand under several keys.
            if !done.contains(&name) {
                done.push(name);
                if let Some(definition) = definitions.get_mut(name) {
                    add(definition, inner);
                }
                left.push(inner);
            }
        }
    }
}

/// The keys that a table always needs, and schemas for those that depend on other keys.
fn requirements(table: &'static Table) -> (Vec<&'static str>, Vec<Value>) {
    let mut required = Vec::new();
    let mut conditional: Vec<Value> = Vec::new();
    for key in &table.keys {
        let conditions: Vec<Value> = key.when.iter().map(|when| condition(when, table)).collect();
        if key.required.is_some() && conditions.is_empty() {
            required.push(key.name.as_str());
        } else if key.required.is_some() {
            let needs = json!({ "required": [key.name] });
            conditional.push(json!({ "if": { "allOf": conditions }, "then": needs }));
        }
        for condition in conditions {
            let given = json!({ "required": [key.name] });
            conditional.push(json!({ "if": given, "then": condition }));
        }
    }
    (required, conditional)
}

/// A condition as a schema of the table.
fn condition(when: &When, table: &'static Table) -> Value {
    let default = table.key(when.key()).and_then(|key| key.default.as_ref());
    when.schema(default.and_then(|default| default.get_ref().as_str()))
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
