//! The reference of all keys, as Markdown.

use std::fmt::Write as _;

use super::entry::{facts, meaning, one_line, paragraphs, tables};
use super::{Key, Table, root};

/// The reference of all tables and keys, as Markdown.
pub fn reference() -> String {
    let mut text = String::from(
        "<!-- Made by `ringgate config reference`. To change it, change the declarations in \
         src/config/keys. -->\n\n# Configuration reference\n",
    );
    for (index, table) in root().table().map(tables).unwrap_or_default().into_iter().enumerate() {
        if index > 0 {
            let _ = write!(text, "\n## `{}`\n", title(table));
        }
        section(&mut text, table);
    }
    text
}

fn section(text: &mut String, table: &Table) {
    for paragraph in paragraphs(&table.description) {
        let _ = write!(text, "\n{paragraph}\n");
    }
    if !table.planned.is_empty() {
        let planned: Vec<String> = table.planned.iter().map(|key| format!("`{key}`")).collect();
        let _ = write!(text, "\nPlanned for a later version: {}.\n", planned.join(", "));
    }
    if root().table().is_some_and(|root| std::ptr::eq(root, table)) {
        contents(text, table);
    } else {
        table.keys.iter().for_each(|key| entry(text, table, key));
    }
}

/// The tables of the file, with links.
fn contents(text: &mut String, file: &Table) {
    text.push_str("\n| table | what it is |\n| --- | --- |\n");
    for key in &file.keys {
        let Some(table) = key.table() else { continue };
        let _ = writeln!(text, "| {} | {} |", link(table), meaning(key));
    }
}

fn entry(text: &mut String, table: &Table, key: &Key) {
    let _ = write!(text, "\n### `{}` in `{}`\n\n{}\n\n", key.name, title(table), meaning(key));
    for word in &key.words {
        let _ = writeln!(text, "- `\"{}\"`: {}", word.word, one_line(&word.meaning));
    }
    if !key.words.is_empty() {
        text.push('\n');
    }
    text.push_str("| | |\n| --- | --- |\n");
    for (label, fact) in facts(key) {
        let _ = writeln!(text, "| {label} | {} |", fact.replace('|', "\\|"));
    }
    if let Some(inner) = key.table() {
        let _ = write!(text, "\nIts keys: {}.\n", link(inner));
    }
}

/// The table in headings: its header, or the key of an inline table.
fn title(table: &Table) -> &str {
    table.header.split(" = ").next().unwrap_or_default()
}

/// A link to the section of a table. The first of several equal tables has the section.
fn link(table: &Table) -> String {
    let all = root().table().map(tables).unwrap_or_default();
    let first = all.iter().position(|one| one.description == table.description);
    let anchor = first.map_or_else(|| anchor(table), |at| anchor(all[at]));
    // Headings with the same words get a number from the second one on.
    let earlier = all[..first.unwrap_or(0)].iter().filter(|one| self::anchor(one) == anchor);
    match earlier.count() {
        0 => format!("[`{}`](#{anchor})", table.header),
        earlier => format!("[`{}`](#{anchor}-{earlier})", table.header),
    }
}

/// The anchor of the heading of a table, as GitHub makes it.
fn anchor(table: &Table) -> String {
    let is_word = |c: &char| c.is_alphanumeric() || "-_ ".contains(*c);
    let words: String = title(table).chars().filter(is_word).collect();
    words.to_lowercase().replace(' ', "-")
}
