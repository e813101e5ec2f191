//! Reads the tables within a table: one, a list of them, or tables by name.

use toml::Spanned;
use toml::de::DeValue;

use super::values::report_wrong_type;
use super::{At, Field, Table};
use crate::config::report::{Span, quoted};

/// The tables below a key, by name, such as `[cluster.NAME]`.
pub(in crate::config) struct NamedTables<'a> {
    pub(in crate::config) tables: Vec<(At<String>, Table<'a>)>,
    /// Whether these are all tables: none is under a key that is misspelt or of the wrong type.
    pub(in crate::config) is_complete: bool,
}

impl<'a> Table<'a> {
    /// Reads `[key]` or `key = { … }`.
    pub(in crate::config) fn table(&mut self, key: &'static str, header: &str) -> Field<Table<'a>> {
        let report = self.report;
        self.read(key, |value| match value.get_ref() {
            DeValue::Table(keys) => Some(Table::new(report, keys, header, value.span().into())),
            DeValue::Array(_) => {
                let note = format!("write {header} once");
                report.error(
                    value.span().into(),
                    format!("`{key}` must be one table, not a list"),
                    note,
                );
                None
            }
            other => {
                let note = format!("write {header}");
                report_wrong_type(report, key, "a table", value.span().into(), other, note)
            }
        })
    }

    /// Reads `[[key]]`. The result is empty if the key was left out or its header was misspelt:
    /// `[[keys]]` followed by `[[key.sub]]` makes a table `key` with no key but `sub`.
    pub(in crate::config) fn tables(&mut self, key: &'static str, header: &str) -> Vec<Table<'a>> {
        let report = self.report;
        let element = |item: &'a Spanned<DeValue<'a>>| match item.get_ref() {
            DeValue::Table(keys) => Some(Table::new(report, keys, header, item.span().into())),
            other => {
                let note = format!("write {header} above the keys of each");
                report_wrong_type(report, key, "a list of tables", item.span().into(), other, note)
            }
        };
        let is_misspelt = self.is_misspelt(key);
        let field = self.read(key, |value| match value.get_ref() {
            DeValue::Array(items) => Some(items.iter().filter_map(element).collect()),
            DeValue::Table(_) if is_misspelt => None,
            DeValue::Table(_) => {
                let what = format!("`{key}` must be a list of tables");
                report.error(value.span().into(), what, format!("write {header}"));
                // The table is read anyway, so that its errors are reported, too.
                element(value).map(|only| vec![only])
            }
            _ => element(value).map(|never| vec![never]),
        });
        field.or(Vec::new())
    }

    /// Reads `[key.NAME]` in the order of the names, each with the position of its name.
    pub(in crate::config) fn named_tables(&mut self, key: &'static str) -> NamedTables<'a> {
        let report = self.report;
        let field = self.table(key, &format!("[{key}.NAME]"));
        let is_complete = field.is_given() == field.value.is_some() && !self.is_misspelt(key);
        let Some(all) = field.value else {
            return NamedTables { tables: Vec::new(), is_complete };
        };
        let named = all.value.keys.iter().filter_map(|(name, value)| {
            let span = Span::from(name.span());
            let header = format!("[{key}.{}]", name.get_ref());
            let DeValue::Table(keys) = value.get_ref() else {
                let what = format!("{} is not a table", quoted(&format!("{key}.{name}")));
                report.error(span, what, format!("write [{key}.NAME] with the keys below it"));
                return None;
            };
            let name = At { value: name.get_ref().clone().into_owned(), span };
            Some((name, Table::new(report, keys, header, value.span().into())))
        });
        NamedTables { tables: named.collect(), is_complete }
    }
}
