//! What is wrong with a text that is not TOML, in words that help.
//!
//! The parser names what it expected next. People forget quotes, repeat a table, or pass the
//! configuration of another program; these cases get advice of their own.

use toml::de::Error;

use super::report::{Report, Span, quoted};

/// Reports syntax errors, one per line: the parser often reports the same problem twice. After a
/// syntax error the rest of the tree is guesswork, so nothing else is reported.
pub(super) fn report(report: &Report<'_>, text: &str, errors: Vec<Error>) {
    if let Some(start) = yaml(text) {
        let note = "a configuration is TOML, with `key = value` and [tables]: \
                    `ringgate run --print-default-config` shows one";
        report.error((start..start).into(), "this is YAML, not TOML", note);
        return;
    }
    let mut last_line = 0;
    for error in errors {
        let span = error.span().map_or(Span { start: 0, end: 0 }, Span::from);
        let line = report.line(span);
        if line == last_line {
            continue;
        }
        last_line = line;
        let (what, note) = explained(report, text, span, &error.message().replace('\n', " "));
        report.error(span, what, note);
    }
}

fn explained(report: &Report<'_>, text: &str, span: Span, message: &str) -> (String, String) {
    let line = line_at(text, span.start);
    if message == "duplicate key" {
        return duplicate(report, text, span, line);
    }
    let about_value = message.starts_with("invalid") || message.starts_with("string values must");
    if about_value && let Some((key, value)) = unquoted(line) {
        let shown = quoted(value);
        return match value.to_ascii_lowercase().as_str() {
            "on" | "yes" | "true" => truth(key, &shown, "true"),
            "off" | "no" | "false" => truth(key, &shown, "false"),
            _ => (
                String::from("a string needs quotes"),
                format!("write {key} = \"{}\"", shown.trim_matches('`')),
            ),
        };
    }
    let note = "this is not valid TOML: write strings as \"…\", lists as [ ], tables as { }";
    (message.to_owned(), note.to_owned())
}

fn truth(key: &str, shown: &str, word: &str) -> (String, String) {
    let note = format!("write {key} = {word}, or {key} = \"…\" for a string");
    (format!("{shown} is not a value"), note)
}

/// The error that a key or a table is set a second time.
fn duplicate(report: &Report<'_>, text: &str, span: Span, line: &str) -> (String, String) {
    let before = &text[..span.start - line_offset(text, span.start)];
    if line.trim_start().starts_with('[') {
        let header = without_comment(line);
        let first = line_of(before, |earlier| without_comment(earlier) == header);
        if let Some(note) = inner_before(report, before, header).filter(|_| first.is_none()) {
            return (format!("{header} must come before the tables within it"), note);
        }
        let mend = "make one table of both; several listeners, hosts, routes and rules are \
                    written as [[name]]";
        let place = first.map(|start| format!("line {} has it, too: ", report.line(start.into())));
        return (
            format!("duplicate table {header}"),
            format!("{}{mend}", place.unwrap_or_default()),
        );
    }
    let name = |line: &str| line.split('=').next().map(|key| key.trim().to_owned());
    let key = name(line);
    // The keys of this table are those since its header.
    let header = before.rfind("\n[").map_or(0, |feed| feed + 1);
    let first = line_of(&before[header..], |earlier| name(earlier) == key);
    let mend = "remove one of them";
    let note = match first {
        Some(start) => {
            let start = header + start.start..header + start.end;
            format!("line {} has it, too: {mend}", report.line(start.into()))
        }
        None => format!("the key is set above, too: {mend}"),
    };
    (String::from("duplicate key"), note)
}

/// The note for the header of a list that follows the header of a table within it: `[[listener]]`
/// behind `[[listener.tls]]`.
fn inner_before(report: &Report<'_>, before: &str, header: &str) -> Option<String> {
    let name = header.strip_prefix("[[")?.strip_suffix("]]")?;
    let is_inner = |line: &str| {
        let inner = without_comment(line).trim_start_matches('[').strip_prefix(name);
        inner.is_some_and(|inner| inner.starts_with('.'))
    };
    let first = line_of(before, is_inner)?;
    let (inner, line) = (line_at(before, first.start), report.line(first.into()));
    Some(format!("line {line} has {}: move it below its {header}", without_comment(inner)))
}

/// The position of the first line with a property.
fn line_of(text: &str, has: impl Fn(&str) -> bool) -> Option<std::ops::Range<usize>> {
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        if has(line) {
            return Some(start..start);
        }
        start += line.len();
    }
    None
}

fn line_offset(text: &str, at: usize) -> usize {
    at - text[..at].rfind('\n').map_or(0, |feed| feed + 1)
}

fn line_at(text: &str, at: usize) -> &str {
    let start = at - line_offset(text, at);
    text[start..].lines().next().unwrap_or_default()
}

fn without_comment(line: &str) -> &str {
    line.split('#').next().unwrap_or_default().trim()
}

/// The key and the value of a line whose value has no quotes and is no list or table.
fn unquoted(line: &str) -> Option<(&str, &str)> {
    let (key, value) = without_comment(line).split_once('=')?;
    let (key, value) = (key.trim(), value.trim());
    let is_word = !value.is_empty() && !value.contains(['"', '\'', '[', '{', '}', ']', '=']);
    is_word.then_some((key, value))
}

/// The position of the first line that is YAML, if the text has no line of TOML.
fn yaml(text: &str) -> Option<usize> {
    let is_toml = |line: &str| {
        let line = without_comment(line);
        line.starts_with('[') || line.split_once('=').is_some_and(|(key, _)| !key.contains(':'))
    };
    if text.lines().any(is_toml) {
        return None;
    }
    let first = line_of(text, |line| {
        let line = without_comment(line);
        line.ends_with(':') || line.contains(": ")
    });
    first.map(|first| first.start)
}
