//! Conditions on another key of the same table.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use toml::de::DeValue;

use super::{Key, Table};

/// The condition that another key of the same table has one of several words, has none of them, is
/// given, or is left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::config) struct When {
    /// The other key.
    key: String,
    test: Test,
    /// Notes for a key that does not apply, by the word that the other key has; `""` is for every
    /// other word.
    notes: Vec<(String, String)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Test {
    Is(Vec<String>),
    IsNot(Vec<String>),
    Given,
    Absent,
}

impl When {
    /// The other key has one of these words.
    pub(in crate::config) fn is(key: &str, words: &[&str], notes: &[(&str, &str)]) -> When {
        When::new(key, Test::Is(owned(words)), notes)
    }

    /// The other key has none of these words.
    pub(in crate::config) fn is_not(key: &str, words: &[&str], note: &str) -> When {
        When::new(key, Test::IsNot(owned(words)), &[("", note)])
    }

    /// The other key is given.
    pub(in crate::config) fn given(key: &str, note: &str) -> When {
        When::new(key, Test::Given, &[("", note)])
    }

    /// The other key is left out.
    pub(in crate::config) fn absent(key: &str, note: &str) -> When {
        When::new(key, Test::Absent, &[("", note)])
    }

    fn new(key: &str, test: Test, notes: &[(&str, &str)]) -> When {
        let notes = notes.iter().map(|(word, note)| ((*word).to_owned(), (*note).to_owned()));
        When { key: key.to_owned(), test, notes: notes.collect() }
    }

    /// Returns whether the conditions differ in their notes at most.
    pub(super) fn is_same_test(&self, other: &When) -> bool {
        self.key == other.key && self.test == other.test
    }

    /// The other key.
    pub(in crate::config) fn key(&self) -> &str {
        &self.key
    }

    /// Returns whether the condition holds in a table with these values. `None` if the other key
    /// has no valid word or is missing without a default, so that its own error is enough.
    pub(in crate::config) fn holds<'v>(
        &self,
        table: &'static Table,
        value_of: impl Fn(&str) -> Option<&'v DeValue<'v>>,
    ) -> Option<bool> {
        let value = value_of(&self.key);
        match &self.test {
            Test::Given => Some(value.is_some()),
            Test::Absent => Some(value.is_none()),
            Test::Is(words) => Some(words.contains(&self.word(table, value)?)),
            // A number is none of the words.
            Test::IsNot(_) if value.or(self.default(table))?.is_integer() => Some(true),
            Test::IsNot(words) => Some(!words.contains(&self.word(table, value)?)),
        }
    }

    /// The default of the other key.
    fn default(&self, table: &'static Table) -> Option<&'static DeValue<'static>> {
        table.key(&self.key)?.default.as_ref().map(toml::Spanned::get_ref)
    }

    /// The word that the other key has, or its default.
    fn word(&self, table: &'static Table, value: Option<&DeValue<'_>>) -> Option<String> {
        let other = table.key(&self.key)?;
        let word = value.or(self.default(table))?.as_str()?;
        (other.words.is_empty() || other.words.iter().any(|known| known.word == word))
            .then(|| word.to_owned())
    }

    /// Says what is wrong with a key of this table that does not apply.
    pub(in crate::config) fn refusal(&self, key: &Key, table: &Table) -> String {
        let title = key.title();
        match &self.test {
            Test::Given => {
                let other = table.key(&self.key).map(Key::title);
                format!("{title} needs {}", other.unwrap_or_default())
            }
            Test::Absent => {
                let other = table.key(&self.key).map(Key::title);
                format!("{title} cannot be combined with {}", other.unwrap_or_default())
            }
            Test::Is(_) => format!("{title} belongs to {}", one_of(&self.key, self.words())),
            Test::IsNot(_) => {
                format!("{title} has no effect with {}", one_of(&self.key, self.words()))
            }
        }
    }

    /// The note for a key of this table that does not apply. `value` is the other key's.
    pub(in crate::config) fn note(
        &self,
        table: &'static Table,
        value: Option<&DeValue<'_>>,
    ) -> &str {
        let word = self.word(table, value).unwrap_or_default();
        let of = |word: &str| self.notes.iter().find(|(known, _)| known == word);
        of(&word).or_else(|| of("")).map_or("remove it", |(_, note)| note)
    }

    /// The condition in words, with code in backticks.
    pub(super) fn condition_in_code(&self) -> String {
        match &self.test {
            Test::Given => format!("`{}`", self.key),
            Test::Absent => format!("no `{}`", self.key),
            Test::Is(words) => format!("`{}`", one_of(&self.key, words)),
            Test::IsNot(words) => format!("another value than `{}`", one_of(&self.key, words)),
        }
    }

    /// The condition as a sentence about a key, with code in backticks.
    pub(super) fn sentence(&self) -> String {
        match &self.test {
            Test::Given => format!("Only with `{}`.", self.key),
            Test::Absent => format!("Not with `{}`.", self.key),
            Test::Is(words) => format!("Only with `{}`.", one_of(&self.key, words)),
            Test::IsNot(words) => format!("Not with `{}`.", one_of(&self.key, words)),
        }
    }

    /// A JSON Schema of the tables in which the condition holds.
    pub(super) fn holds_schema(&self, table: &Table) -> Value {
        match &self.test {
            Test::Given => json!({ "required": [self.key] }),
            Test::Absent => json!({ "not": { "required": [self.key] } }),
            Test::Is(words) => self.has_one_of(words, table),
            Test::IsNot(words) => json!({ "not": self.has_one_of(words, table) }),
        }
    }

    /// A JSON Schema of the tables in which the other key has a valid word that the condition does
    /// not accept, or is given if it must not be. `None` if the other key must be given.
    pub(super) fn fails_schema(&self, table: &Table) -> Option<Value> {
        match &self.test {
            Test::Given => None,
            Test::Absent => Some(json!({ "required": [self.key] })),
            Test::IsNot(words) => Some(self.has_one_of(words, table)),
            Test::Is(words) => {
                let all = table.key(&self.key).map_or(&[][..], |other| &other.words);
                let others = all.iter().map(|known| known.word.clone());
                let others: Vec<String> = others.filter(|word| !words.contains(word)).collect();
                Some(self.has_one_of(&others, table))
            }
        }
    }

    /// The other key may be left out if its default is one of the words.
    fn has_one_of(&self, words: &[String], table: &Table) -> Value {
        let default = table.key(&self.key).and_then(|other| other.default.as_ref());
        let default = default.and_then(|default| default.get_ref().as_str());
        let known = json!({ &self.key: { "enum": words } });
        if default.is_some_and(|default| words.iter().any(|word| word == default)) {
            json!({ "properties": known })
        } else {
            json!({ "required": [self.key], "properties": known })
        }
    }

    fn words(&self) -> &[String] {
        match &self.test {
            Test::Is(words) | Test::IsNot(words) => words,
            Test::Given | Test::Absent => &[],
        }
    }
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// `key = "a", "b" or "c"`
fn one_of(key: &str, words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
    match words.split_last() {
        Some((last, [])) => format!("{key} = {last}"),
        Some((last, before)) => format!("{key} = {} or {last}", before.join(", ")),
        None => key.to_owned(),
    }
}
