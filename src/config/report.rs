//! What is wrong with a configuration: collected while it is read, shown all at once.
//!
//! A [`Report`] takes problems in any order from `table`, `file` and `check`, each with the place
//! it is about, and becomes the [`Errors`] an operator sees, in the order of the file. A file
//! without errors may still have [`Warnings`]: what is allowed and probably not meant. How a place
//! is drawn is `excerpt`'s business. Values of the file stand in messages only through [`quoted`].

use std::cell::RefCell;
use std::fmt;
use std::ops::Range;

use super::excerpt::{Excerpt, line_number};

/// A place in the text: byte offsets, the end not included.
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

/// What is wrong with a value, before anyone says where it stood.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// One sentence: what is wrong.
    pub(super) what: String,
    /// Why it matters or how to mend it; each line is shown on its own. May be empty.
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

    /// Records a problem; see [`Fault`] for what the two texts say.
    pub(super) fn error(&self, span: Span, what: impl Into<String>, note: impl Into<String>) {
        self.fault(span, Fault::new(what, note));
    }

    /// The same for a fault that was found without its place.
    pub(super) fn fault(&self, span: Span, fault: Fault) {
        self.problems.borrow_mut().push(Problem { span: Some(span), fault });
    }

    /// Records what is allowed and probably not meant; the texts are those of [`Fault`].
    pub(super) fn warning(&self, span: Span, what: impl Into<String>, note: impl Into<String>) {
        let problem = Problem { span: Some(span), fault: Fault::new(what, note) };
        self.warnings.borrow_mut().push(problem);
    }

    /// The number of the line a span starts on, for messages that speak of two places.
    pub(super) fn line(&self, span: Span) -> usize {
        line_number(self.text, span.start)
    }

    /// The place of one character within a string value, `offset` bytes into it; the whole value
    /// where escapes or a multi-line string make the offset mean something else in the file.
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

    /// Everything found, in the order of the file; `name` is what the file is called.
    pub(super) fn into_errors(self, name: &str) -> Errors {
        Errors(Findings::new("error", name, self.text, self.problems.into_inner()))
    }

    /// The warnings, in the order of the file.
    pub(super) fn into_warnings(self, name: &str) -> Warnings {
        Warnings(Findings::new("warning", name, self.text, self.warnings.into_inner()))
    }
}

/// One thing that is wrong, and where.
#[derive(Debug, PartialEq, Eq)]
struct Problem {
    /// None: the file as a whole.
    span: Option<Span>,
    fault: Fault,
}

/// Everything wrong with one configuration. `Display` shows all of it, in the order of the file,
/// each with its line, a caret under the culprit and advice; problems are separated by an empty
/// line and the last line has no line feed.
pub struct Errors(Findings);

impl Errors {
    /// The one error that a file could not be read at all.
    pub(super) fn unreadable(name: &str, fault: Fault) -> Self {
        Errors(Findings::new("error", name, "", vec![Problem { span: None, fault }]))
    }

    /// How many there are; at least one.
    pub fn count(&self) -> usize {
        self.0.problems.len()
    }
}

/// What is probably not meant in a configuration that is valid. `Display` shows it as [`Errors`]
/// are shown; it is empty when there is none.
#[derive(Default)]
pub struct Warnings(Findings);

impl Warnings {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.problems.is_empty()
    }

    /// Each as it is logged.
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
    /// What is odd.
    pub what: &'w str,
    /// The name of the file.
    pub file: &'w str,
    /// Counted from 1; none: it is about the file as a whole.
    pub line: Option<usize>,
    /// Characters, counted from 1.
    pub column: Option<usize>,
    /// How to mend it.
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

/// Problems of one kind in one file, in its order.
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

/// Where a note is broken into lines, in characters.
const NOTE_WIDTH: usize = 96;

/// Breaks a note between words where it passes `width`; lines after the first are indented.
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

/// A value of the file for a message: in backticks, on one line, harmless to a terminal, not long.
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

/// The word among `known` that was probably meant. A third of it may be wrong, at most 3 letters.
pub(super) fn closest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&word, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.chars().count() / 3).clamp(1, 3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// The note for a word that does not exist: the one meant, or all there are.
pub(super) fn advice(word: &str, known: &[&str]) -> String {
    match closest(word, known.iter().copied()) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("write {}", one_of(known)),
    }
}

/// "`a`, `b` or `c`"
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
