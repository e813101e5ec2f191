//! The effective configuration: the file with the default of every key that was left out.

use toml::de::{DeArray, DeTable, DeValue};
use toml::{Spanned, Table as Values, Value};

use super::redact::redact;
use super::{Key, Kind, Table, root};

/// The form of the effective configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// TOML, which `ringgate` reads again.
    Toml,
    /// JSON.
    Json,
}

/// The effective configuration of a valid file.
pub(in crate::config) fn effective(file: &DeTable<'_>, form: Form) -> String {
    form.write(&effective_values(file))
}

/// The same as JSON, without what is secret.
pub(in crate::config) fn redacted(file: &DeTable<'_>) -> String {
    let mut values = effective_values(file);
    redact(&mut values);
    Form::Json.write(&values)
}

fn effective_values(file: &DeTable<'_>) -> Values {
    let table = root().table();
    table.map_or_else(Values::new, |table| Scope { table, keys: file, outer: None }.values())
}

impl Form {
    fn write(self, values: &Values) -> String {
        match self {
            Form::Toml => toml::to_string(values).expect("tables and values can be written"),
            Form::Json => {
                let text =
                    serde_json::to_string_pretty(values).expect("text keys and plain values");
                format!("{text}\n")
            }
        }
    }
}

/// A table of the file, with the effective values of the table around it.
#[derive(Clone, Copy)]
struct Scope<'a> {
    table: &'static Table,
    keys: &'a DeTable<'a>,
    outer: Option<&'a Enclosing<'a>>,
}

/// The effective values of a table, for the tables in it.
struct Enclosing<'a> {
    values: &'a Values,
    outer: Option<&'a Enclosing<'a>>,
}

impl Scope<'_> {
    /// All keys in the order of the declaration: those without tables first, because the tables may
    /// inherit from them.
    fn values(self) -> Values {
        let mut values = Values::new();
        let (tables, plain): (Vec<_>, Vec<_>) =
            self.table.keys.iter().partition(|key| key.table().is_some());
        for key in plain {
            let given = self.get(&key.name).map(plain_value);
            values
                .extend(given.or_else(|| self.default(key)).map(|value| (key.name.clone(), value)));
        }
        for key in tables {
            let given = self.get(&key.name);
            let value = {
                let enclosing = Enclosing { values: &values, outer: self.outer };
                match (given, &key.kind) {
                    (Some(value), _) => Some(inner(key, value, &enclosing)),
                    (None, Kind::Table(_)) if key.inherits => self.inherited(key),
                    (None, Kind::Table(_)) => {
                        self.default_in_file(key).map(|default| inner(key, default, &enclosing))
                    }
                    _ => None,
                }
            };
            values.extend(value.map(|value| (key.name.clone(), value)));
        }
        values
    }

    /// The default of a key that was left out, if the key applies and has one.
    fn default(self, key: &'static Key) -> Option<Value> {
        if !self.applies(key) {
            return None;
        }
        let own = self.default_in_file(key).map(plain_value);
        own.or_else(|| if key.inherits { self.inherited(key) } else { None })
    }

    fn default_in_file(self, key: &'static Key) -> Option<&'static DeValue<'static>> {
        key.default_in(self.table, |name| self.get(name)).map(Spanned::get_ref)
    }

    fn applies(self, key: &'static Key) -> bool {
        key.when.iter().all(|when| when.holds(self.table, |name| self.get(name)) == Some(true))
    }

    /// The value of the same key in the nearest table around this one that has it.
    fn inherited(self, key: &Key) -> Option<Value> {
        let mut next = self.outer;
        while let Some(enclosing) = next {
            if let Some(value) = enclosing.values.get(&key.name) {
                return Some(value.clone());
            }
            next = enclosing.outer;
        }
        None
    }

    /// The value of a key. An empty list of tables counts as left out.
    fn get(&self, name: &str) -> Option<&DeValue<'_>> {
        let value = self.keys.get(name).map(Spanned::get_ref)?;
        self.table.counts(name, value).then_some(value)
    }
}

/// The effective value of a key that holds tables.
fn inner(key: &'static Key, value: &DeValue<'_>, outer: &Enclosing<'_>) -> Value {
    let one = |table, value: &DeValue<'_>| match value {
        DeValue::Table(keys) => Value::Table(Scope { table, keys, outer: Some(outer) }.values()),
        other => plain_value(other),
    };
    match (&key.kind, value) {
        (Kind::Named(table), DeValue::Table(named)) => {
            let mut all: Vec<(String, Value)> = named
                .iter()
                .map(|(name, value)| (name.get_ref().to_string(), one(table, value.get_ref())))
                .collect();
            all.sort_by(|(first, _), (second, _)| first.cmp(second));
            Value::Table(all.into_iter().collect())
        }
        (Kind::Tables(table), DeValue::Array(items)) => {
            Value::Array(items.iter().map(|item| one(table, item.get_ref())).collect())
        }
        (Kind::Table(table), value) => one(table, value),
        (_, other) => plain_value(other),
    }
}

/// A value without its position.
fn plain_value(value: &DeValue<'_>) -> Value {
    let list = |items: &DeArray<'_>| items.iter().map(|item| plain_value(item.get_ref())).collect();
    match value {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Integer(number) => {
            let parsed = i64::from_str_radix(number.as_str(), number.radix());
            Value::Integer(parsed.unwrap_or(i64::MAX))
        }
        DeValue::Float(number) => Value::Float(number.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(truth) => Value::Boolean(*truth),
        DeValue::Datetime(time) => Value::Datetime(*time),
        DeValue::Array(items) => Value::Array(list(items)),
        DeValue::Table(keys) => {
            let plain = keys
                .iter()
                .map(|(name, value)| (name.get_ref().to_string(), plain_value(value.get_ref())));
            Value::Table(plain.collect())
        }
    }
}
