//! One value of the file, or one that was left out, and what is said of a wrong one.

use serde::de::{Error as _, Unexpected};
use toml::Spanned;
use toml::de::DeValue;

use super::mistake::Mistake;
use crate::config::contract::{self, Key, Kind, Literal};
use crate::config::report::{Report, Span, advice, one_of, quoted};

pub(super) const A_LIST: &str = "a list of strings";
pub(super) const A_STRING_OR_LIST: &str = "a string or a list of strings";

/// A value and the key that it belongs to.
#[derive(Clone, Copy)]
pub(super) struct Value<'a> {
    pub(super) report: &'a Report<'a>,
    pub(super) key: &'static Key,
    /// The position of the key. `None` if it was left out, and for defaults.
    pub(super) name: Option<Span>,
    /// `None` if the key was left out.
    pub(super) item: Option<&'a Spanned<DeValue<'a>>>,
    /// The default, in the table that has the key.
    pub(super) default: Option<&'static Literal>,
    /// Whether the value is an element of a list or one of several tables.
    pub(super) element: bool,
    /// Whether the table has an unknown key that probably means this one.
    pub(super) misspelt: bool,
    /// The name of a table of `[key.NAME]`.
    pub(super) called: Option<&'a str>,
}

impl<'a> Value<'a> {
    /// The file as a whole.
    pub(super) fn root(report: &'a Report<'a>, file: &'a Spanned<DeValue<'a>>) -> Self {
        Value {
            report,
            key: contract::root(),
            name: None,
            item: Some(file),
            default: None,
            element: false,
            misspelt: false,
            called: None,
        }
    }

    /// The same key with its default as the value, if it has one.
    pub(super) fn default_alone(self) -> Value<'a> {
        let default = self.default.map(|default| -> &Spanned<DeValue<'a>> { default });
        Value { name: None, item: default, ..self }
    }

    pub(super) fn with_element(self, item: &'a Spanned<DeValue<'a>>) -> Value<'a> {
        Value { item: Some(item), element: true, ..self }
    }

    pub(super) fn span(self) -> Span {
        let start = Span { start: 0, end: 0 };
        self.item.map_or(start, |item| item.span().into())
    }

    /// The value; a key that must be present has one.
    pub(super) fn content(self) -> Result<&'a DeValue<'a>, Mistake> {
        self.item.map(Spanned::get_ref).ok_or(Mistake::Reported)
    }

    /// The mistake that the value has another type than the wanted one.
    pub(super) fn wrong_type(self, wanted: &str) -> Mistake {
        match self.content() {
            Ok(found) => Mistake::invalid_type(unexpected(found), &wanted),
            Err(mistake) => mistake,
        }
    }

    /// Reports what is wrong with the value.
    pub(super) fn report(self, mistake: Mistake) {
        let key = self.key.name.as_str();
        let advice_of_key = || self.key.advice.clone().unwrap_or_default();
        let (what, note) = match mistake {
            Mistake::Reported => return,
            Mistake::Type { .. } if self.element && self.key.table().is_none() => {
                let what = format!("`{key}` must contain strings only");
                let note = match self.item.map(Spanned::get_ref) {
                    Some(DeValue::Table(_)) if self.key.schema.get("items").is_some() => {
                        "a later version brings tables in this list"
                    }
                    Some(DeValue::Table(_)) => "a name with a dot needs quotes, as its value does",
                    _ => "write the value in quotes",
                };
                (what, note.to_owned())
            }
            Mistake::Type { found: "a list", .. } if self.is_one_table() => {
                let what = format!("`{key}` must be one table, not a list");
                (what, format!("write {} once", self.header()))
            }
            Mistake::Type { wanted, found } => {
                (format!("`{key}` must be {wanted}, not {found}"), self.type_note(&wanted))
            }
            Mistake::Range(range) => (format!("`{key}` must be {range}"), self.number_note()),
            Mistake::Word { word, known } => self.unknown_word(&word, &known),
            Mistake::Other { what, note } if note.is_empty() => (what, advice_of_key()),
            Mistake::Other { what, note } => (what, note),
        };
        self.report.error(self.span(), what, note);
    }

    /// The name of the table in messages.
    pub(super) fn header(self) -> String {
        let header = self.key.table().map_or("", |table| table.header.as_str());
        self.called.map_or_else(|| header.to_owned(), |name| header.replace("NAME", name))
    }

    fn is_one_table(self) -> bool {
        matches!(self.key.kind, Kind::Table(_) | Kind::Named(_))
    }

    /// The note for a value of the wrong type.
    fn type_note(self, wanted: &str) -> String {
        let key = self.key.name.as_str();
        match &self.key.kind {
            Kind::Value => {}
            Kind::Tables(_) => return format!("write {} above the keys of each", self.header()),
            Kind::Table(_) | Kind::Named(_) => return format!("write {}", self.header()),
        }
        match (wanted, &self.key.advice) {
            ("true or false", _) => {
                format!("write {key} = true or {key} = false, without quotes")
            }
            ("a whole number", _) => {
                format!("write a number without quotes or fraction; {}", self.number_note())
            }
            (A_LIST | A_STRING_OR_LIST, _) => {
                let example = self.key.example();
                format!("write {key} = {}", example.as_deref().unwrap_or("[\"…\", \"…\"]"))
            }
            ("a string", _) => format!("write {key} = \"…\", in quotes"),
            (_, Some(advice)) => advice.clone(),
            (words, None) => {
                let typed = self.number().unwrap_or_default();
                if let Some(note) = self.key.foreign_words.get(typed) {
                    return note.clone();
                }
                let mut known = words.split('`').skip(1).step_by(2);
                let word = known.clone().find(|word| *word == typed).or(known.next());
                format!("write {key} = \"{}\", in quotes", word.unwrap_or("…"))
            }
        }
    }

    /// A number as it is written in the file.
    fn number(self) -> Option<&'a str> {
        match self.item.map(Spanned::get_ref)? {
            DeValue::Integer(number) => Some(number.as_str()),
            DeValue::Float(number) => Some(number.as_str()),
            _ => None,
        }
    }

    /// The advice for a number, and its default.
    fn number_note(self) -> String {
        let default = self.key.schema.get("default").filter(|default| default.is_u64());
        let default = default.map(|default| format!("the default is {default}"));
        self.key.advice.clone().into_iter().chain(default).collect::<Vec<_>>().join("; ")
    }

    /// An unknown word gets the most specific advice: planned, of another program, or similar.
    fn unknown_word(self, word: &str, known: &[&str]) -> (String, String) {
        let key = self.key.name.as_str();
        if self.key.planned_words.iter().any(|planned| planned == word) {
            let what = format!("`{key} = \"{word}\"` is not available in this version");
            return (what, format!("a later version brings it: write {}", one_of(known)));
        }
        let verb = if self.element { "contain" } else { "be" };
        let what = format!("`{key}` cannot {verb} {}", quoted(word));
        let foreign = self.key.foreign_words.get(&word.to_ascii_lowercase());
        let note = foreign.cloned().unwrap_or_else(|| advice(word, known));
        match &self.key.advice {
            // Words are not the only values of this key, so the advice names all of them.
            Some(advice) if foreign.is_none() && !note.starts_with("did") => (what, advice.clone()),
            _ => (what, note),
        }
    }
}

/// The type of a value, in the words of serde.
pub(super) fn unexpected<'v>(value: &'v DeValue<'_>) -> Unexpected<'v> {
    match value {
        DeValue::String(text) => Unexpected::Str(text),
        DeValue::Integer(_) => Unexpected::Unsigned(0),
        DeValue::Float(_) => Unexpected::Float(0.0),
        DeValue::Boolean(truth) => Unexpected::Bool(*truth),
        DeValue::Array(_) => Unexpected::Seq,
        DeValue::Table(_) => Unexpected::Map,
        DeValue::Datetime(_) => Unexpected::Other("a date"),
    }
}
