//! What the declarations in `keys` say about each key, taken from their JSON Schema.
//!
//! `schemars` derives the schema from the declarations. Its standard keywords are what editors and
//! validators read. What they cannot express stands in keywords of our own:
//!
//! | keyword | of | meaning |
//! | --- | --- | --- |
//! | `x-advice` | key | the note for a value of the wrong type or out of range |
//! | `x-empty` | key | the note for an empty list |
//! | `x-required` | key | the key must be given; the note if it is not |
//! | `x-when` | key | [`When`] the key applies; it is refused otherwise |
//! | `x-defaults` | key | other defaults, each with the [`When`] that it applies |
//! | `x-inherits` | key | with no other default it is what the nearest table around this one has |
//! | `x-min`, `x-max` | key | the range of a size or duration |
//! | `x-step` | key | a duration is a multiple of this one |
//! | `x-unit` | key | what a number counts |
//! | `x-since` | key | the version that brought the key, if it is not the first |
//! | `x-one-or-many` | key | a single value may stand for a list of one |
//! | `x-inline` | table | the table is written in one line: `key = { … }` |
//! | `x-rules` | table | [`rules`] about several keys, for editors and validators |
//! | `x-planned` | table, word | keys and words of later versions |
//! | `x-foreign` | word | advice for words of other programs |
//! | `x-foreign` | table | the keys for what other programs call otherwise, or advice |
//!
//! Reading, the schema, the reference and the effective configuration all use this one source.

mod build;
mod entry;
mod man;
mod redact;
mod reference;
pub(super) mod rules;
mod schema;
mod show;
mod when;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::LazyLock;

use toml::Spanned;
use toml::de::DeValue;

pub use self::man::man;
pub use self::reference::reference;
pub use self::schema::schema;
pub use self::show::Form;
pub(super) use self::show::{effective, redacted};
pub(super) use self::when::When;

/// The declaration of the whole file.
pub(super) fn root() -> &'static Key {
    static ROOT: LazyLock<Key> = LazyLock::new(build::root);
    &ROOT
}

/// The declaration of one key.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) default: Option<Literal>,
    /// Defaults that apply under a condition; the first that applies comes before `default`.
    pub(super) defaults: Vec<(When, Literal)>,
    /// Whether the default is the value of the same key in a table around this one, where there is
    /// no other.
    pub(super) inherits: bool,
    /// The range of a number, of a size in bytes, or of a duration in milliseconds.
    pub(super) range: RangeInclusive<u64>,
    /// A duration is a multiple of this one, in milliseconds.
    pub(super) step_ms: u64,
    pub(super) advice: Option<String>,
    /// Whether a single string may stand for a list of one.
    pub(super) one_or_many: bool,
    /// The note for an empty list.
    pub(super) empty: Option<String>,
    /// The note for a missing key that must be given.
    pub(super) required: Option<String>,
    /// The conditions under which the key applies; all must hold.
    pub(super) when: Vec<When>,
    /// The words that the key may have; empty if it has other values.
    pub(super) words: Vec<Word>,
    /// Words that are planned for a later version.
    pub(super) planned_words: Vec<String>,
    /// Advice for words of other programs, which are in lower case.
    pub(super) foreign_words: BTreeMap<String, String>,
    /// The property in the schema.
    pub(super) schema: serde_json::Value,
}

/// What a key holds.
#[derive(Debug)]
pub(super) enum Kind {
    Value,
    /// `[key]` or `key = { … }`
    Table(Table),
    /// `[[key]]`
    Tables(Table),
    /// `[key.NAME]`
    Named(Table),
}

/// A word that a key may have.
#[derive(Debug)]
pub(super) struct Word {
    pub(super) word: String,
    pub(super) meaning: String,
}

/// The declaration of a table.
#[derive(Debug)]
pub(super) struct Table {
    /// Its name in messages, such as `[[listener]]`.
    pub(super) header: String,
    pub(super) description: String,
    /// In the order of the declaration.
    pub(super) keys: Vec<Key>,
    /// Keys that are planned for a later version.
    pub(super) planned: Vec<String>,
    /// The keys here for what other programs call so, or advice, which has spaces.
    pub(super) foreign: BTreeMap<String, String>,
}

/// A default, as a value of TOML.
pub(super) type Literal = Spanned<DeValue<'static>>;

impl Key {
    /// The table or tables that the key holds.
    pub(super) fn table(&self) -> Option<&Table> {
        match &self.kind {
            Kind::Value => None,
            Kind::Table(table) | Kind::Tables(table) | Kind::Named(table) => Some(table),
        }
    }

    /// The first example, as it is written in a file.
    pub(super) fn example(&self) -> Option<String> {
        entry::examples(self).first().map(entry::in_toml)
    }

    /// The key in messages: `` `name` ``, or `[[name]]` for a list of tables.
    pub(super) fn title(&self) -> String {
        match &self.kind {
            Kind::Tables(table) => table.header.clone(),
            _ => format!("`{}`", self.name),
        }
    }

    /// The default in a table with these values, without what it inherits.
    pub(super) fn default_in<'v>(
        &'static self,
        table: &'static Table,
        value_of: impl Fn(&str) -> Option<&'v DeValue<'v>> + Copy,
    ) -> Option<&'static Literal> {
        let applies = |(when, _): &&(When, Literal)| when.holds(table, value_of) == Some(true);
        let other = self.defaults.iter().find(applies).map(|(_, default)| default);
        other.or(self.default.as_ref())
    }
}

impl Table {
    /// Returns false for an empty list of tables, which means the same as a key that is left out.
    pub(super) fn counts(&self, key: &str, value: &DeValue<'_>) -> bool {
        let is_empty = value.as_array().is_some_and(|list| list.is_empty());
        !is_empty || !self.key(key).is_some_and(|key| matches!(key.kind, Kind::Tables(_)))
    }

    pub(super) fn key(&self, name: &str) -> Option<&Key> {
        self.keys.iter().find(|key| key.name == name)
    }
}
