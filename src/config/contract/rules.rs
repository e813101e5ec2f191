//! Rules about several keys of a table, as JSON Schemas for the keyword `x-rules`.
//!
//! They are for editors and validators. `check` has the same rules, with better messages. A key
//! that must not be there has the schema `false`, because editors underline that key then; with
//! `oneOf` they underline the whole table.

use serde::Serialize;
use serde_json::{Value, json};

/// The table has exactly one of these keys.
pub(in crate::config) fn one_of(keys: &[&str]) -> Value {
    match keys {
        [first, others @ ..] if !others.is_empty() => json!({
            "if": { "required": [first] },
            "then": none_of(others),
            "else": one_of(others),
        }),
        last => json!({ "required": last }),
    }
}

/// The table has at least one of these keys.
pub(in crate::config) fn some_of(keys: &[&str]) -> Value {
    match keys {
        [only] => json!({ "required": [only] }),
        several => {
            let each = several.iter().map(|key| json!({ "required": [key] }));
            json!({ "anyOf": each.collect::<Vec<_>>() })
        }
    }
}

/// The table has none of these keys.
pub(in crate::config) fn none_of(keys: &[&str]) -> Value {
    let each = keys.iter().map(|key| ((*key).to_owned(), Value::Bool(false)));
    json!({ "properties": each.collect::<serde_json::Map<_, _>>() })
}

/// The table has this key with one of these values.
pub(in crate::config) fn has(key: &str, values: impl Serialize) -> Value {
    json!({ "required": [key], "properties": { key: { "enum": values } } })
}

/// All these schemas hold.
pub(super) fn all_of(mut schemas: Vec<Value>) -> Value {
    match schemas.len() {
        1 => schemas.remove(0),
        _ => json!({ "allOf": schemas }),
    }
}
