//! The problems of a configuration: collected while it is read, shown all at once.
//!
//! `read` and `check` add problems to a [`Report`] in any order, each with its position.
//! The report becomes the [`Errors`] that the operator sees, in the order of the file. A file
//! without errors may still have [`Warnings`]: parts that are valid but probably unintended.
//! `excerpt` shows the lines of the file. Messages must contain values of the file only through
//! [`quoted`].

mod findings;
mod words;

use std::cell::{Cell, RefCell};

pub use self::findings::{Errors, Warning, Warnings};
use self::findings::{Findings, MAX_SHOWN, Problem};
pub use self::words::printable;
pub(super) use self::words::{advice, closest, one_of, quoted};
use super::excerpt::Lines;
use super::input::ReadError;
pub(super) use super::span::Span;
use crate::error::general_advice;

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

    /// With the note that the cause asks for, if it is about no file in particular.
    fn because_of(self, cause: &ReadError) -> Self {
        match general_advice(cause) {
            Some(advice) => Fault { note: advice.to_owned(), ..self },
            None => self,
        }
    }
}

/// The largest number of errors that are kept in memory; further ones are counted. The first of the
/// kept ones in the order of the file are shown.
const MAX_KEPT: usize = 10_000;

/// The problems found so far in one text.
pub(super) struct Report<'a> {
    lines: Lines<'a>,
    problems: RefCell<Vec<Problem>>,
    /// The number of errors beyond [`MAX_KEPT`].
    dropped: Cell<usize>,
    warnings: RefCell<Vec<Problem>>,
}

impl<'a> Report<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let lines = Lines::new(text);
        Report {
            lines,
            problems: RefCell::default(),
            dropped: Cell::default(),
            warnings: RefCell::default(),
        }
    }

    /// Adds an error. See [`Fault`] for the two texts.
    pub(super) fn error(&self, span: Span, what: impl Into<String>, note: impl Into<String>) {
        self.fault(span, Fault::new(what, note));
    }

    /// Adds a fault at its position.
    pub(super) fn fault(&self, span: Span, fault: Fault) {
        self.keep(Problem { span: Some(span), fault, cause: None });
    }

    /// Adds the fault that a file which is named at this position cannot be read.
    pub(super) fn unreadable(&self, span: Span, fault: Fault, cause: ReadError) {
        let fault = fault.because_of(&cause);
        self.keep(Problem { span: Some(span), fault, cause: Some(cause) });
    }

    /// Keeps an error, or counts it if there are very many.
    fn keep(&self, problem: Problem) {
        let mut problems = self.problems.borrow_mut();
        if problems.len() < MAX_KEPT {
            problems.push(problem);
        } else {
            self.dropped.set(self.dropped.get() + 1);
        }
    }

    /// Adds a warning about something valid but probably unintended. See [`Fault`] for the two
    /// texts.
    pub(super) fn warning(&self, span: Span, what: impl Into<String>, note: impl Into<String>) {
        let fault = Fault::new(what, note);
        let problem = Problem { span: Some(span), fault, cause: None };
        self.warnings.borrow_mut().push(problem);
    }

    /// The line on which a span starts, for messages about two positions.
    pub(super) fn line(&self, span: Span) -> usize {
        self.lines.number(span.start)
    }

    /// The span of the character at byte `offset` of a string value. Returns the span of the whole
    /// value if escapes or a multi-line string make the offset in the file different.
    pub(super) fn within(&self, span: Span, value: &str, offset: usize) -> Span {
        let typed = self.lines.text.get(span.start + 1..span.end.saturating_sub(1));
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

    /// Returns true while a further error may still be shown, so that a costly guess at what was
    /// meant is worth its time.
    pub(super) fn shows_more(&self) -> bool {
        self.problems.borrow().len() < MAX_SHOWN
    }

    /// The errors in the order of the file. `name` is the name of the file in messages.
    pub(super) fn into_errors(self, name: &str) -> Errors {
        let problems = self.problems.into_inner();
        Errors(Findings::new("error", name, &self.lines, problems, self.dropped.get()))
    }

    /// The warnings, in the order of the file.
    pub(super) fn into_warnings(self, name: &str) -> Warnings {
        Warnings(Findings::new("warning", name, &self.lines, self.warnings.into_inner(), 0))
    }
}

#[cfg(test)]
mod tests;
