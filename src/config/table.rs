//! Reads one TOML table key by key.
//!
//! A serde derive stops at the first error and loses the positions of values. Here each key is read
//! with the type it must have. A value of another type is reported with its position and reading
//! continues, so that one run shows all errors. Finally [`Table::finish`] reports the keys that
//! were not read. This module knows TOML and units, but not the meaning of any key.

use std::ops::RangeInclusive;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::report::{Report, Span, advice, closest, one_of, quoted};
use super::units::{self, Unfit};

/// A value and its position.
#[derive(Clone, Debug)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) span: Span,
}

/// A key of a table: left out, given and valid, or given and already reported.
#[derive(Clone, Debug)]
pub(super) struct Field<T> {
    /// The position of the key. `None` if it was left out.
    pub(super) key: Option<Span>,
    /// `None` if the key was left out or reported.
    pub(super) value: Option<At<T>>,
}

impl<T> Default for Field<T> {
    /// A key that was left out.
    fn default() -> Self {
        Field { key: None, value: None }
    }
}

impl<T> Field<T> {
    pub(super) fn is_given(&self) -> bool {
        self.key.is_some()
    }

    pub(super) fn or(self, default: T) -> T {
        self.value.map_or(default, |at| at.value)
    }

    pub(super) fn map<U>(self, change: impl FnOnce(T) -> U) -> Field<U> {
        let value = self.value.map(|at| At { value: change(at.value), span: at.span });
        Field { key: self.key, value }
    }

    pub(super) fn as_ref(&self) -> Option<&T> {
        self.value.as_ref().map(|at| &at.value)
    }
}

/// The tables below a key, by name, such as `[cluster.NAME]`.
pub(super) struct NamedTables<'a> {
    pub(super) tables: Vec<(At<String>, Table<'a>)>,
    /// Whether these are all tables: none is under a key that is misspelt or of the wrong type.
    pub(super) complete: bool,
}

/// A table of the file and the keys read from it so far.
pub(super) struct Table<'a> {
    pub(super) report: &'a Report<'a>,
    keys: &'a DeTable<'a>,
    /// Its name in messages, such as `[[listener]]`.
    place: String,
    /// Its header, or the whole of an inline table.
    pub(super) span: Span,
    asked: Vec<&'static str>,
}

impl<'a> Table<'a> {
    pub(super) fn new(
        report: &'a Report<'a>,
        keys: &'a DeTable<'a>,
        place: impl Into<String>,
        span: Span,
    ) -> Self {
        Table { report, keys, place: place.into(), span, asked: Vec::new() }
    }

    pub(super) fn string(&mut self, key: &'static str) -> Field<String> {
        let report = self.report;
        self.read(key, |value| match value.get_ref() {
            DeValue::String(text) => Some(text.clone().into_owned()),
            other => {
                let note = format!("write {key} = \"…\", in quotes");
                mistyped(report, key, "a string", value.span().into(), other, note)
            }
        })
    }

    pub(super) fn boolean(&mut self, key: &'static str) -> Field<bool> {
        let report = self.report;
        self.read(key, |value| match value.get_ref() {
            DeValue::Boolean(truth) => Some(*truth),
            other => {
                let note = format!("write {key} = true or {key} = false, without quotes");
                mistyped(report, key, "true or false", value.span().into(), other, note)
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
                return mistyped(report, key, "a whole number", span, value.get_ref(), note);
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

    /// Reads one of `words`. The words in `later` are planned but not available in this version.
    pub(super) fn word<T: Copy>(
        &mut self,
        key: &'static str,
        words: &[(&'static str, T)],
        later: &[&str],
    ) -> Field<T> {
        self.word_with(key, words, later, |_| None)
    }

    /// Like [`Table::word`], with special advice for words of other programs.
    pub(super) fn word_with<T: Copy>(
        &mut self,
        key: &'static str,
        words: &[(&'static str, T)],
        later: &[&str],
        foreign: impl Fn(&str) -> Option<&'static str>,
    ) -> Field<T> {
        let report = self.report;
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        self.read(key, |value| {
            let span = value.span().into();
            let DeValue::String(text) = value.get_ref() else {
                let note = format!("write {key} = \"{}\", in quotes", known[0]);
                return mistyped(report, key, &one_of(&known), span, value.get_ref(), note);
            };
            // An unknown word gets the most specific advice: planned, of another program, or
            // similar.
            let found = words.iter().find(|(word, _)| word == text).map(|(_, meaning)| *meaning);
            if found.is_none() && later.contains(&text.as_ref()) {
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

    /// Reads a list of strings, which may be empty. With `or_one`, a single string is a list of
    /// one. Other elements are reported and left out.
    pub(super) fn strings(&mut self, key: &'static str, or_one: bool) -> Field<Vec<At<String>>> {
        let report = self.report;
        let wanted = if or_one { "a string or a list of strings" } else { "a list of strings" };
        self.read(key, |value| match value.get_ref() {
            DeValue::Array(items) => {
                Some(items.iter().filter_map(|item| read_element(report, key, item)).collect())
            }
            DeValue::String(_) if or_one => Some(Vec::from_iter(read_element(report, key, value))),
            other => {
                let note = format!("write {key} = [\"…\", \"…\"]");
                mistyped(report, key, wanted, value.span().into(), other, note)
            }
        })
    }

    /// Reads a value of any type, for the one key that accepts several types.
    pub(super) fn any(&mut self, key: &'static str) -> Field<&'a DeValue<'a>> {
        self.read(key, |value| Some(value.get_ref()))
    }

    /// Reads `[key]` or `key = { … }`.
    pub(super) fn table(&mut self, key: &'static str, place: &str) -> Field<Table<'a>> {
        let report = self.report;
        self.read(key, |value| match value.get_ref() {
            DeValue::Table(keys) => Some(Table::new(report, keys, place, value.span().into())),
            DeValue::Array(_) => {
                let note = format!("write {place}, once");
                report.error(
                    value.span().into(),
                    format!("`{key}` is one table, not a list"),
                    note,
                );
                None
            }
            other => {
                let note = format!("write {place}");
                mistyped(report, key, "a table", value.span().into(), other, note)
            }
        })
    }

    /// Reads `[[key]]`. The result is empty if the key was left out or its header was misspelt:
    /// `[[keys]]` followed by `[[key.sub]]` makes a table `key` with no key but `sub`.
    pub(super) fn tables(&mut self, key: &'static str, place: &str) -> Vec<Table<'a>> {
        let report = self.report;
        let element = |item: &'a Spanned<DeValue<'a>>| match item.get_ref() {
            DeValue::Table(keys) => Some(Table::new(report, keys, place, item.span().into())),
            other => {
                let note = format!("write {place} above the keys of each");
                mistyped(report, key, "a list of tables", item.span().into(), other, note)
            }
        };
        let is_misspelt = self.is_misspelt(key);
        let field = self.read(key, |value| match value.get_ref() {
            DeValue::Array(items) => Some(items.iter().filter_map(element).collect()),
            DeValue::Table(_) if is_misspelt => None,
            DeValue::Table(_) => {
                let what = format!("`{key}` is a list of tables, there may be several");
                report.error(value.span().into(), what, format!("write {place}"));
                // The table is read anyway, so that its errors are reported, too.
                element(value).map(|only| vec![only])
            }
            _ => element(value).map(|never| vec![never]),
        });
        field.or(Vec::new())
    }

    /// Reads `[key.NAME]` in the order of the names, each with the position of its name.
    pub(super) fn named_tables(&mut self, key: &'static str) -> NamedTables<'a> {
        let report = self.report;
        let field = self.table(key, &format!("[{key}.NAME]"));
        let complete = field.is_given() == field.value.is_some() && !self.is_misspelt(key);
        let Some(all) = field.value else {
            return NamedTables { tables: Vec::new(), complete };
        };
        let named = all.value.keys.iter().filter_map(|(name, value)| {
            let span = Span::from(name.span());
            let place = format!("[{key}.{}]", name.get_ref());
            let DeValue::Table(keys) = value.get_ref() else {
                let what = format!("{} is not a table", quoted(&format!("{key}.{name}")));
                report.error(span, what, format!("write [{key}.NAME] with the keys below it"));
                return None;
            };
            let name = At { value: name.get_ref().clone().into_owned(), span };
            Some((name, Table::new(report, keys, place, value.span().into())))
        });
        NamedTables { tables: named.collect(), complete }
    }

    /// Returns the field and reports it if the key was left out. A misspelt key is not reported
    /// here: [`Table::finish`] does it.
    pub(super) fn required<T>(&self, key: &str, field: Field<T>, note: &str) -> Field<T> {
        if !field.is_given() && !self.is_misspelt(key) {
            self.report.error(self.span, format!("{} needs `{key}`", self.place), note);
        }
        field
    }

    /// Returns true when the table has a key that is probably meant to be this one.
    fn is_misspelt(&self, key: &str) -> bool {
        let mut others = self.keys.keys().filter(|typed| typed.get_ref() != key);
        others.any(|typed| closest(typed.get_ref(), [key]).is_some())
    }

    /// Reports the keys that were not read. Returns false if there are any; then a missing key may
    /// be misspelt and must not be reported as well. The keys in `later` are planned but not
    /// available in this version.
    pub(super) fn finish(self, later: &[&str]) -> bool {
        let mut complete = true;
        let mut known = self.asked;
        known.sort_unstable();
        for key in self.keys.keys() {
            let name: &str = key.get_ref();
            if known.contains(&name) {
                continue;
            }
            let note = match closest(name, known.iter().copied()) {
                _ if later.contains(&name) => {
                    String::from("it is planned, but not available in this version: take it out")
                }
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("known here: {}", known.join(", ")),
            };
            let what = format!("unknown key {} in {}", quoted(name), self.place);
            self.report.error(key.span().into(), what, note);
            complete = false;
        }
        complete
    }

    fn read<T>(
        &mut self,
        key: &'static str,
        understand: impl FnOnce(&'a Spanned<DeValue<'a>>) -> Option<T>,
    ) -> Field<T> {
        self.asked.push(key);
        let Some((name, value)) = self.keys.get_key_value(key) else {
            return Field::default();
        };
        let span = value.span().into();
        let value = understand(value).map(|value| At { value, span });
        Field { key: Some(name.span().into()), value }
    }
}

/// Reports a value of the wrong type. The note shows the right form.
fn mistyped<T>(
    report: &Report<'_>,
    key: &str,
    wanted: &str,
    span: Span,
    found: &DeValue<'_>,
    note: String,
) -> Option<T> {
    let found = match found {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    };
    report.error(span, format!("`{key}` must be {wanted}, not {found}"), note);
    None
}

fn read_element(report: &Report<'_>, key: &str, item: &Spanned<DeValue<'_>>) -> Option<At<String>> {
    let span = item.span().into();
    match item.get_ref() {
        DeValue::String(text) => Some(At { value: text.clone().into_owned(), span }),
        other => {
            let note = match other {
                DeValue::Table(_) => "tables in this list are not available in this version",
                _ => "put it into quotes",
            };
            report.error(span, format!("`{key}` takes strings only"), note);
            None
        }
    }
}

/// Returns `Some(None)` for "off" and `None` if an error was reported.
fn read_duration(
    report: &Report<'_>,
    key: &str,
    value: &Spanned<DeValue<'_>>,
    may_be_off: bool,
) -> Option<Option<Duration>> {
    let span = value.span().into();
    let text = with_unit(value.get_ref());
    let unfit = match text.as_deref().map(units::duration) {
        Some(Ok(duration)) => return Some(Some(duration)),
        Some(Err(unfit)) => unfit,
        None => {
            let off = if may_be_off { ", or \"off\"" } else { "" };
            let note = format!("write {key} = \"5s\"{off}; the units are ms, s, m, h and d");
            return mistyped(report, key, "a duration", span, value.get_ref(), note);
        }
    };
    let text = text.unwrap_or_default();
    let otherwise = if may_be_off { "write \"off\"" } else { "leave the key out for its default" };
    let (what, note) = match unfit {
        Unfit::Shape if text == "off" && may_be_off => return Some(None),
        Unfit::Shape if text == "off" => (
            format!("`{key}` cannot be off"),
            String::from("write a duration; the longest is \"365d\""),
        ),
        Unfit::Shape => (
            format!("`{key}` is not a duration: {}", quoted(&text)),
            format!(
                "write a whole number and a unit (ms, s, m, h or d), such as \"250ms\"{}",
                if may_be_off { "; or \"off\"" } else { "" }
            ),
        ),
        Unfit::NoUnit => (
            format!("`{key}` is a duration without its unit"),
            format!("write \"{text}ms\" or \"{text}s\"; the units are ms, s, m, h and d"),
        ),
        Unfit::Zero => (
            format!("`{key}` cannot be 0"),
            format!("0 would mean \"at once\" to some and \"off\" to others: {otherwise}"),
        ),
        Unfit::TooMuch => (
            format!("`{key}` is too long: {}", quoted(&text)),
            String::from("the longest duration is \"365d\""),
        ),
    };
    report.error(span, what, note);
    None
}

fn read_size(
    report: &Report<'_>,
    key: &str,
    range: &RangeInclusive<u64>,
    value: &Spanned<DeValue<'_>>,
) -> Option<u64> {
    let span = value.span().into();
    let bounds = format!(
        "it may be \"{}\" to \"{}\"",
        units::in_bytes(*range.start()),
        units::in_bytes(*range.end())
    );
    let text = with_unit(value.get_ref());
    let unfit = match text.as_deref().map(units::size) {
        Some(Ok(size)) if range.contains(&size) => return Some(size),
        Some(Ok(_)) => Unfit::TooMuch,
        Some(Err(unfit)) => unfit,
        None => {
            let note = format!("write {key} = \"16KiB\"; the units are B, KiB, MiB and GiB");
            return mistyped(report, key, "a size", span, value.get_ref(), note);
        }
    };
    let text = text.unwrap_or_default();
    let (what, note) = match unfit {
        Unfit::Shape => (
            format!("`{key}` is not a size: {}", quoted(&text)),
            String::from("write a whole number and a unit (B, KiB, MiB or GiB), such as \"16KiB\""),
        ),
        Unfit::NoUnit => (
            format!("`{key}` is a size without its unit"),
            format!("write \"{text}B\" if it means bytes; the units are B, KiB, MiB and GiB"),
        ),
        Unfit::Zero => (format!("`{key}` cannot be 0"), bounds),
        Unfit::TooMuch => (format!("`{key}` is out of range: {}", quoted(&text)), bounds),
    };
    report.error(span, what, note);
    None
}

/// The text of a string, or of a whole number, which has no unit then.
fn with_unit(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.clone().into_owned()),
        other => whole_number(other).map(|number| number.to_string()),
    }
}

/// Returns `None` if the value is not a whole number, is negative, or does not fit in 64 bits.
pub(super) fn whole_number(value: &DeValue<'_>) -> Option<u64> {
    let DeValue::Integer(number) = value else { return None };
    u64::from_str_radix(number.as_str(), number.radix()).ok()
}

/// The error message for a number that is too small or too large.
pub(super) fn out_of_range(key: &str, range: &RangeInclusive<u64>) -> String {
    match *range.end() {
        u64::MAX => format!("`{key}` must be {} or more", range.start()),
        end => format!("`{key}` must be {} to {end}", range.start()),
    }
}
