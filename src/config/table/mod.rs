//! Reads one TOML table key by key.
//!
//! A serde derive stops at the first error and loses the positions of values. Here each key is read
//! with the type it must have. A value of another type is reported with its position and reading
//! continues, so that one run shows all errors. Finally [`Table::report_unknown_keys`] reports the
//! keys that were not read. This module knows TOML and units, but not the meaning of any key.

mod field;
mod nested;
mod values;

use std::ops::RangeInclusive;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

pub(super) use self::field::{At, Field};
pub(super) use self::values::{out_of_range, whole_number};
use self::values::{read_duration, read_element, read_size, report_wrong_type};
use super::report::{Report, Span, advice, closest, one_of, quoted};

/// A table of the file and the keys read from it so far.
pub(super) struct Table<'a> {
    pub(super) report: &'a Report<'a>,
    keys: &'a DeTable<'a>,
    /// Its name in messages, such as `[[listener]]`.
    header: String,
    /// Its header, or the whole of an inline table.
    pub(super) span: Span,
    read_keys: Vec<&'static str>,
}

impl<'a> Table<'a> {
    pub(super) fn new(
        report: &'a Report<'a>,
        keys: &'a DeTable<'a>,
        header: impl Into<String>,
        span: Span,
    ) -> Self {
        Table { report, keys, header: header.into(), span, read_keys: Vec::new() }
    }

    pub(super) fn string(&mut self, key: &'static str) -> Field<String> {
        let report = self.report;
        self.read(key, |value| match value.get_ref() {
            DeValue::String(text) => Some(text.clone().into_owned()),
            other => {
                let note = format!("write {key} = \"…\", in quotes");
                report_wrong_type(report, key, "a string", value.span().into(), other, note)
            }
        })
    }

    pub(super) fn boolean(&mut self, key: &'static str) -> Field<bool> {
        let report = self.report;
        self.read(key, |value| match value.get_ref() {
            DeValue::Boolean(truth) => Some(*truth),
            other => {
                let note = format!("write {key} = true or {key} = false, without quotes");
                report_wrong_type(report, key, "true or false", value.span().into(), other, note)
            }
        })
    }

    /// Reads a whole number in the range. `advice` is the note for one outside of it.
    pub(super) fn integer(
        &mut self,
        key: &'static str,
        range: RangeInclusive<u64>,
        advice: &str,
    ) -> Field<u64> {
        let report = self.report;
        self.read(key, |value| {
            let span = value.span().into();
            if !matches!(value.get_ref(), DeValue::Integer(_)) {
                let note = format!("write a number without quotes or fraction; {advice}");
                return report_wrong_type(
                    report,
                    key,
                    "a whole number",
                    span,
                    value.get_ref(),
                    note,
                );
            }
            match whole_number(value.get_ref()).filter(|number| range.contains(number)) {
                Some(number) => Some(number),
                None => {
                    report.error(span, out_of_range(key, &range), advice);
                    None
                }
            }
        })
    }

    pub(super) fn duration(&mut self, key: &'static str) -> Field<Duration> {
        let report = self.report;
        self.read(key, |value| read_duration(report, key, value, false).flatten())
    }

    /// Reads a duration or `"off"`, which becomes `None`.
    pub(super) fn duration_or_off(&mut self, key: &'static str) -> Field<Option<Duration>> {
        let report = self.report;
        self.read(key, |value| read_duration(report, key, value, true))
    }

    /// Reads a size in the range, in bytes.
    pub(super) fn size(&mut self, key: &'static str, range: RangeInclusive<u64>) -> Field<u64> {
        let report = self.report;
        self.read(key, |value| read_size(report, key, &range, value))
    }

    /// Reads one of `words`. The words in `planned` are not available in this version.
    pub(super) fn word<T: Copy>(
        &mut self,
        key: &'static str,
        words: &[(&'static str, T)],
        planned: &[&str],
    ) -> Field<T> {
        self.word_with(key, words, planned, |_| None)
    }

    /// Like [`Table::word`], with special advice for words of other programs.
    pub(super) fn word_with<T: Copy>(
        &mut self,
        key: &'static str,
        words: &[(&'static str, T)],
        planned: &[&str],
        foreign: impl Fn(&str) -> Option<&'static str>,
    ) -> Field<T> {
        let report = self.report;
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        self.read(key, |value| {
            let span = value.span().into();
            let DeValue::String(text) = value.get_ref() else {
                let note = format!("write {key} = \"{}\", in quotes", known[0]);
                return report_wrong_type(
                    report,
                    key,
                    &one_of(&known),
                    span,
                    value.get_ref(),
                    note,
                );
            };
            // An unknown word gets the most specific advice: planned, of another program, or
            // similar.
            let found = words.iter().find(|(word, _)| word == text).map(|(_, meaning)| *meaning);
            if found.is_none() && planned.contains(&text.as_ref()) {
                let what = format!("`{key} = \"{text}\"` is not available in this version");
                report.error(span, what, format!("write {}", one_of(&known)));
            } else if found.is_none() {
                let what = format!("`{key}` cannot be {}", quoted(text));
                let foreign = foreign(&text.to_ascii_lowercase()).map(str::to_owned);
                report.error(span, what, foreign.unwrap_or_else(|| advice(text, &known)));
            }
            found
        })
    }

    /// Reads a list of strings, which may be empty. With `may_be_single`, a single string is a list
    /// of one. Other elements are reported and left out.
    pub(super) fn strings(
        &mut self,
        key: &'static str,
        may_be_single: bool,
    ) -> Field<Vec<At<String>>> {
        let report = self.report;
        let wanted =
            if may_be_single { "a string or a list of strings" } else { "a list of strings" };
        self.read(key, |value| match value.get_ref() {
            DeValue::Array(items) => {
                Some(items.iter().filter_map(|item| read_element(report, key, item)).collect())
            }
            DeValue::String(_) if may_be_single => {
                Some(Vec::from_iter(read_element(report, key, value)))
            }
            other => {
                let note = format!("write {key} = [\"…\", \"…\"]");
                report_wrong_type(report, key, wanted, value.span().into(), other, note)
            }
        })
    }

    /// Reads a value of any type, for the one key that accepts several types.
    pub(super) fn any(&mut self, key: &'static str) -> Field<&'a DeValue<'a>> {
        self.read(key, |value| Some(value.get_ref()))
    }

    /// Returns the field and reports it if the key was left out. A misspelt key is not reported
    /// here: [`Table::report_unknown_keys`] does it.
    pub(super) fn required<T>(&self, key: &str, field: Field<T>, note: &str) -> Field<T> {
        if !field.is_given() && !self.is_misspelt(key) {
            self.report.error(self.span, format!("{} needs `{key}`", self.header), note);
        }
        field
    }

    /// Returns true when the table has a key that is probably meant to be this one.
    fn is_misspelt(&self, key: &str) -> bool {
        let mut others = self.keys.keys().filter(|typed| typed.get_ref() != key);
        others.any(|typed| closest(typed.get_ref(), [key]).is_some())
    }

    /// Reports the keys that were not read. Returns false if there are any; then a missing key may
    /// be misspelt and must not be reported as well. The keys in `planned` are not available in
    /// this version.
    pub(super) fn report_unknown_keys(self, planned: &[&str]) -> bool {
        let mut complete = true;
        let mut known = self.read_keys;
        known.sort_unstable();
        for key in self.keys.keys() {
            let name: &str = key.get_ref();
            if known.contains(&name) {
                continue;
            }
            let note = match closest(name, known.iter().copied()) {
                _ if planned.contains(&name) => {
                    String::from("the key is planned, but not available in this version: remove it")
                }
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("known keys: {}", known.join(", ")),
            };
            let what = format!("unknown key {} in {}", quoted(name), self.header);
            self.report.error(key.span().into(), what, note);
            complete = false;
        }
        complete
    }

    fn read<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&'a Spanned<DeValue<'a>>) -> Option<T>,
    ) -> Field<T> {
        self.read_keys.push(key);
        let Some((name, value)) = self.keys.get_key_value(key) else {
            return Field::default();
        };
        let span = value.span().into();
        let value = parse(value).map(|value| At { value, span });
        Field { key: Some(name.span().into()), value }
    }
}
