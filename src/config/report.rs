//! The problems of a configuration: collected while it is read, shown all at once.
//!
//! `table`, `file` and `check` add problems to a [`Report`] in any order, each with its position.
//! The report becomes the [`Errors`] that the operator sees, in the order of the file. A file
//! without errors may still have [`Warnings`]: parts that are valid but probably unintended.
//! `excerpt` shows the lines of the file. Messages must contain values of the file only through
//! [`quoted`].

use std::cell::RefCell;
use std::fmt;
use std::ops::Range;

use super::excerpt::{Excerpt, line_number};

/// A range of the text in byte offsets, without the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Span {
    pub(super) start: usize,
    pub(super) end: usize,
}

impl From<Range<usize>> for Span {
    fn from(range: Range<usize>) -> Self {
        Span { start: range.start, end: range.end }
    }
}

/// An error in a value, without its position.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// One sentence that states the error.
    pub(super) what: String,
    /// Why it matters or how to fix it. Each line is shown separately. May be empty.
    pub(super) note: String,
}

impl Fault {
    pub(super) fn new(what: impl Into<String>, note: impl Into<String>) -> Self {
        Fault { what: what.into(), note: note.into() }
    }
}

/// The problems found so far in one text.
pub(super) struct Report<'a> {
    text: &'a str,
    problems: RefCell<Vec<Problem>>,
    warnings: RefCell<Vec<Problem>>,
}

impl<'a> Report<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Report { text, problems: RefCell::default(), warnings: RefCell::default() }
    }

    /// Adds an error. See [`Fault`] for the two texts.
    pub(super) fn error(&self, span: Span, what: impl Into<String>, note: impl Into<String>) {
        self.fault(span, Fault::new(what, note));
    }

    /// Adds a fault at its position.
    pub(super) fn fault(&self, span: Span, fault: Fault) {
        self.problems.borrow_mut().push(Problem { span: Some(span), fault });
    }

    /// Adds a warning about something valid but probably unintended. See [`Fault`] for the two
    /// texts.
    pub(super) fn warning(&self, span: Span, what: impl Into<String>, note: impl Into<String>) {
        let problem = Problem { span: Some(span), fault: Fault::new(what, note) };
        self.warnings.borrow_mut().push(problem);
    }

    /// The line on which a span starts, for messages about two positions.
    pub(super) fn line(&self, span: Span) -> usize {
        line_number(self.text, span.start)
    }

    /// The span of the character at byte `offset` of a string value. Returns the span of the whole
    /// value if escapes or a multi-line string make the offset in the file different.
    pub(super) fn within(&self, span: Span, value: &str, offset: usize) -> Span {
        let typed = self.text.get(span.start + 1..span.end.saturating_sub(1));
        match (typed == Some(value), value.get(offset..).and_then(|rest| rest.chars().next())) {
            (true, Some(character)) => {
                let start = span.start + 1 + offset;
                Span { start, end: start + character.len_utf8() }
            }
            _ => span,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.problems.borrow().is_empty()
    }

    /// The errors in the order of the file. `name` is the name of the file in messages.
    pub(super) fn into_errors(self, name: &str) -> Errors {
        Errors(Findings::new("error", name, self.text, self.problems.into_inner()))
    }

    /// The warnings, in the order of the file.
    pub(super) fn into_warnings(self, name: &str) -> Warnings {
        Warnings(Findings::new("warning", name, self.text, self.warnings.into_inner()))
    }
}

/// One error or warning and its position.
#[derive(Debug, PartialEq, Eq)]
struct Problem {
    /// `None` if it is about the file as a whole.
    span: Option<Span>,
    fault: Fault,
}

/// All errors of one configuration. `Display` shows them in the order of the file, each with its
/// line, carets under the faulty part and advice. An empty line separates them, and the last line
/// has no line feed.
pub struct Errors(Findings);

impl Errors {
    /// The error that a file could not be read at all.
    pub(super) fn unreadable(name: &str, fault: Fault) -> Self {
        Errors(Findings::new("error", name, "", vec![Problem { span: None, fault }]))
    }

    /// The number of errors; at least one.
    pub fn count(&self) -> usize {
        self.0.problems.len()
    }
}

/// The parts of a valid configuration that are probably unintended. `Display` shows them like
/// [`Errors`]; the text is empty if there are none.
#[derive(Default)]
pub struct Warnings(Findings);

impl Warnings {
    /// Returns true when there are no warnings.
    pub fn is_empty(&self) -> bool {
        self.0.problems.is_empty()
    }

    /// The warnings in the form in which they are logged.
    pub fn each(&self) -> impl Iterator<Item = Warning<'_>> {
        self.0.problems.iter().map(|problem| {
            let excerpt = problem.span.map(|span| Excerpt::new(&self.0.text, span));
            Warning {
                what: &problem.fault.what,
                file: &self.0.name,
                line: excerpt.as_ref().map(|excerpt| excerpt.line),
                column: excerpt.as_ref().map(|excerpt| excerpt.column),
                advice: problem.fault.note.replace('\n', "; "),
            }
        })
    }
}

/// One of the [`Warnings`].
#[derive(Debug, PartialEq, Eq)]
pub struct Warning<'w> {
    /// What is unusual.
    pub what: &'w str,
    /// The name of the file.
    pub file: &'w str,
    /// The line, counted from 1. `None` if the warning is about the file as a whole.
    pub line: Option<usize>,
    /// The column in characters, counted from 1.
    pub column: Option<usize>,
    /// How to fix it.
    pub advice: String,
}

impl fmt::Debug for Warnings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Warnings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl std::error::Error for Errors {}

impl fmt::Debug for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Problems of one kind in one file, in the order of the file.
#[derive(Default)]
struct Findings {
    kind: &'static str,
    name: String,
    text: String,
    problems: Vec<Problem>,
}

impl Findings {
    fn new(kind: &'static str, name: &str, text: &str, mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| problem.span);
        problems.dedup();
        let text = if problems.is_empty() { "" } else { text };
        Findings { kind, name: name.to_owned(), text: text.to_owned(), problems }
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n\n")?;
            }
            write!(f, "{}: {}", self.kind, problem.fault.what)?;
            let mut gutter = 1;
            if let Some(span) = problem.span {
                let excerpt = Excerpt::new(&self.text, span);
                gutter = excerpt.gutter();
                write!(f, "\n --> {}:{}:{}\n{excerpt}", self.name, excerpt.line, excerpt.column)?;
            }
            for line in problem.fault.note.lines() {
                let indent = " ".repeat(gutter + 1);
                write!(f, "\n{indent}= {}", wrapped(line, NOTE_WIDTH, gutter + 3))?;
            }
        }
        Ok(())
    }
}

/// The maximum width of a line of a note, in characters.
const NOTE_WIDTH: usize = 96;

/// Breaks a note between words into lines of at most `width` characters. Lines after the first are
/// indented.
fn wrapped(note: &str, width: usize, indent: usize) -> String {
    let mut lines = String::new();
    let mut used = 0;
    for word in note.split(' ') {
        let length = word.chars().count();
        if used > 0 && used + 1 + length > width {
            lines.push('\n');
            lines.push_str(&" ".repeat(indent));
            used = 0;
        } else if used > 0 {
            lines.push(' ');
            used += 1;
        }
        lines.push_str(word);
        used += length;
    }
    lines
}

/// Prepares a value of the file for a message: in backticks, on one line, shortened and without
/// characters that affect a terminal.
pub(super) fn quoted(value: &str) -> String {
    const LONGEST: usize = 60;
    let mut shown = String::from("`");
    for character in value.chars().take(LONGEST) {
        match character {
            '"' | '\'' | '\\' => shown.push(character),
            other => shown.extend(other.escape_debug()),
        }
    }
    shown.push_str(if value.chars().nth(LONGEST).is_some() { "…`" } else { "`" });
    shown
}

/// The known word that was probably meant. The edit distance may be a third of its length, but at
/// least 1 and at most 3.
pub(super) fn closest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&word, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.chars().count() / 3).clamp(1, 3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// The note for an unknown word: the word that was probably meant, or all known words.
pub(super) fn advice(word: &str, known: &[&str]) -> String {
    match closest(word, known.iter().copied()) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("write {}", one_of(known)),
    }
}

/// Formats words as "`a`, `b` or `c`".
pub(super) fn one_of(words: &[&str]) -> String {
    let words: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    match words.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, before)) => format!("{} or {last}", before.join(", ")),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_come_in_the_order_of_the_file() {
        let report = Report::new("a = 1\nb = 2\n");
        report.error(Span { start: 6, end: 7 }, "second", "");
        report.error(Span { start: 0, end: 1 }, "first", "mend it\nor not");
        assert!(!report.is_empty());
        let errors = report.into_errors("edge.toml");
        assert_eq!(errors.count(), 2);
        let first =
            "error: first\n --> edge.toml:1:1\n  |\n1 | a = 1\n  | ^\n  = mend it\n  = or not";
        let second = "error: second\n --> edge.toml:2:1\n  |\n2 | b = 2\n  | ^";
        assert_eq!(errors.to_string(), format!("{first}\n\n{second}"));
    }

    #[test]
    fn warnings_are_shown_as_errors_are() {
        let report = Report::new("a = 1\nb = 2\n");
        report.warning(Span { start: 6, end: 7 }, "odd", "mend it\nor not");
        assert!(report.is_empty());
        let warnings = report.into_warnings("edge.toml");
        let shown =
            "warning: odd\n --> edge.toml:2:1\n  |\n2 | b = 2\n  | ^\n  = mend it\n  = or not";
        assert_eq!(warnings.to_string(), shown);
        let expected = Warning {
            what: "odd",
            file: "edge.toml",
            line: Some(2),
            column: Some(1),
            advice: String::from("mend it; or not"),
        };
        assert_eq!(warnings.each().collect::<Vec<_>>(), [expected]);
        assert!(Report::new("").into_warnings("edge.toml").is_empty());
    }

    #[test]
    fn a_value_cannot_speak_to_the_terminal() {
        assert_eq!(quoted("a\u{1b}[31m\r\n\u{202e}\"b\""), r#"`a\u{1b}[31m\r\n\u{202e}"b"`"#);
        assert_eq!(quoted(&"x".repeat(61)), format!("`{}…`", "x".repeat(60)));
    }

    #[test]
    fn a_guess_is_made_only_for_a_near_miss() {
        let known = ["idle_timeout", "name", "tls"];
        assert_eq!(closest("idle_timout", known), Some("idle_timeout"));
        assert_eq!(closest("Name", known), Some("name"));
        assert_eq!(closest("deny", known), None);
        assert_eq!(closest("tcp", known), None);
    }

    #[test]
    fn long_notes_are_broken_between_words() {
        assert_eq!(wrapped("aaa bbb ccc", 7, 2), "aaa bbb\n  ccc");
        assert_eq!(wrapped("aaaaaaaaaa b", 7, 1), "aaaaaaaaaa\n b");
    }

    #[test]
    fn a_place_within_a_string_is_found_unless_it_holds_escapes() {
        let report = Report::new(r#"a = "x%{y" b = "\tz""#);
        let plain = Span { start: 4, end: 10 };
        assert_eq!(report.within(plain, "x%{y", 1), Span { start: 6, end: 7 });
        assert_eq!(report.within(plain, "x%{y", 4), plain);
        let escaped = Span { start: 15, end: 20 };
        assert_eq!(report.within(escaped, "\tz", 1), escaped);
    }
}
