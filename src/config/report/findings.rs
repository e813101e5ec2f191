//! The errors and the warnings of one file, as the operator sees them.

use std::error::Error;
use std::fmt;

use super::{Fault, Span};
use crate::config::excerpt::{Excerpt, Lines};
use crate::config::input::ReadError;
use crate::error::chain;

/// One error or warning and its position.
#[derive(Debug)]
pub(super) struct Problem {
    /// `None` if it is about the file as a whole.
    pub(super) span: Option<Span>,
    pub(super) fault: Fault,
    /// Why a file cannot be read, if that is the problem.
    pub(super) cause: Option<ReadError>,
}

/// All errors of one configuration. `Display` shows them in the order of the file, each with its
/// line, carets under the faulty part and advice. An empty line separates them, and the last line
/// has no line feed. Only the first 100 are shown; the last line is then the number of the others.
pub struct Errors(pub(super) Findings);

impl Errors {
    /// The error that a file could not be read at all.
    pub(in crate::config) fn unreadable(name: &str, fault: Fault, cause: ReadError) -> Self {
        let fault = fault.because_of(&cause);
        let problem = Problem { span: None, fault, cause: Some(cause) };
        Errors(Findings::new("error", name, &Lines::new(""), vec![problem], 0))
    }

    /// The number of errors, shown or not; at least one.
    pub fn count(&self) -> usize {
        self.0.count
    }
}

/// The parts of a valid configuration that are probably unintended. `Display` shows them like
/// [`Errors`]; the text is empty if there are none.
#[derive(Default)]
pub struct Warnings(pub(super) Findings);

impl Warnings {
    /// Returns true when there are no warnings.
    pub fn is_empty(&self) -> bool {
        self.0.problems.is_empty()
    }

    /// The warnings in the form in which they are logged: the first 100, and how many more there
    /// are.
    pub fn each(&self) -> impl Iterator<Item = Warning<'_>> {
        let file = self.0.name.as_str();
        let shown = self.0.shown().map(move |(problem, excerpt)| Warning {
            what: &problem.fault.what,
            file,
            line: excerpt.as_ref().map(|excerpt| excerpt.line),
            column: excerpt.as_ref().map(|excerpt| excerpt.column),
            advice: problem.fault.note.replace('\n', "; "),
        });
        let more = self.0.more.iter().map(move |more| {
            let advice = format!("only the first {MAX_SHOWN} are shown");
            Warning { what: more, file, line: None, column: None, advice }
        });
        shown.chain(more)
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

impl Error for Errors {
    /// Why the first of the files that cannot be read is unreadable.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        let cause = self.0.problems.iter().find_map(|problem| problem.cause.as_ref())?;
        Some(cause)
    }
}

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

/// The maximum number of problems of one kind that are shown.
pub(super) const MAX_SHOWN: usize = 100;

/// Problems of one kind in one file, in the order of the file.
#[derive(Default)]
pub(super) struct Findings {
    kind: &'static str,
    name: String,
    problems: Vec<Problem>,
    /// The number of problems, those that are not kept included.
    count: usize,
    /// The lines of the problems that are shown. `None` if a problem has no position.
    excerpts: Vec<Option<Excerpt>>,
    /// How many problems are not shown, as a sentence. `None` if all are shown.
    more: Option<String>,
}

impl Findings {
    pub(super) fn new(
        kind: &'static str,
        name: &str,
        lines: &Lines<'_>,
        mut problems: Vec<Problem>,
        dropped: usize,
    ) -> Self {
        problems.sort_by_key(|problem| problem.span);
        problems.dedup_by(|one, other| one.span == other.span && one.fault == other.fault);
        let excerpt = |problem: &Problem| problem.span.map(|span| Excerpt::new(lines, span));
        let excerpts = problems.iter().take(MAX_SHOWN).map(excerpt).collect();
        let count = problems.len() + dropped;
        let more = match count.saturating_sub(MAX_SHOWN) {
            0 => None,
            1 => Some(format!("… and 1 more {kind}")),
            more => Some(format!("… and {more} more {kind}s")),
        };
        Findings { kind, name: name.to_owned(), problems, count, excerpts, more }
    }

    /// The problems that are shown, with their lines.
    fn shown(&self) -> impl Iterator<Item = (&Problem, &Option<Excerpt>)> {
        self.problems.iter().zip(&self.excerpts)
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (problem, excerpt)) in self.shown().enumerate() {
            if index > 0 {
                f.write_str("\n\n")?;
            }
            write!(f, "{}: {}", self.kind, problem.fault.what)?;
            if let Some(cause) = &problem.cause {
                write!(f, ": {}", chain(cause))?;
            }
            let mut gutter = 1;
            if let Some(excerpt) = excerpt {
                gutter = excerpt.gutter();
                write!(f, "\n --> {}:{}:{}\n{excerpt}", self.name, excerpt.line, excerpt.column)?;
            }
            for line in problem.fault.note.lines() {
                let indent = " ".repeat(gutter + 1);
                write!(f, "\n{indent}= {}", wrapped(line, NOTE_WIDTH, gutter + 3))?;
            }
        }
        self.more.iter().try_for_each(|more| write!(f, "\n\n{more}"))
    }
}

/// The maximum width of a line of a note, in characters.
const NOTE_WIDTH: usize = 96;

/// Breaks a note between words into lines of at most `width` characters. Lines after the first are
/// indented.
pub(super) fn wrapped(note: &str, width: usize, indent: usize) -> String {
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
