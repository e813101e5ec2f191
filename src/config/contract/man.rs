//! The reference of all keys, as a manual page.

use roff::{Inline, Roff, bold, roman};

use super::entry::{facts, meaning, one_line, paragraphs, tables};
use super::root;

/// The manual page ringgate.toml(5), as roff: the same text as the reference.
pub fn man() -> String {
    let mut page = Roff::new();
    let version = concat!("ringgate ", env!("CARGO_PKG_VERSION"));
    page.control("TH", ["ringgate.toml", "5", "", version]);
    page.control("SH", ["NAME"]);
    page.text([roman("ringgate.toml - the configuration of ringgate")]);
    for (index, table) in root().table().map(tables).unwrap_or_default().into_iter().enumerate() {
        let header = if index == 0 { "DESCRIPTION" } else { table.header.as_str() };
        page.control("SH", [header.replace('…', "...").as_str()]);
        for paragraph in paragraphs(&table.description) {
            page.control("PP", []);
            page.text(inline(&paragraph));
        }
        for key in &table.keys {
            page.control("TP", []);
            page.text([bold(key.name.as_str())]);
            page.text(inline(&meaning(key)));
            for word in &key.words {
                page.control("br", []);
                page.text(inline(&format!("`{}`: {}", word.word, one_line(&word.meaning))));
            }
            for (label, fact) in facts(key) {
                page.control("br", []);
                page.text(inline(&format!("{label}: {fact}")));
            }
        }
    }
    page.control("SH", ["SEE ALSO"]);
    page.text([bold("ringgate"), roman("(1)")]);
    page.to_roff()
}

/// Text with the parts in backticks in bold.
fn inline(text: &str) -> Vec<Inline> {
    // roff reads ASCII alone.
    let text = text.replace('…', "...");
    let parts = text.split('`').enumerate();
    parts.map(|(index, part)| if index % 2 == 0 { roman(part) } else { bold(part) }).collect()
}
