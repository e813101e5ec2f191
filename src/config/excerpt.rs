//! Shows the line of an error and marks the faulty part with carets.
//!
//! Positions are bytes in the text; columns count characters, as editors do. `annotate_snippets`
//! draws the line: it knows how wide characters are, and shortens long lines around the marked
//! part. It gets only the part of the line near the error, so that the cost of an excerpt does not
//! grow with the text. Characters that affect a terminal are replaced by U+FFFD.

use std::cell::OnceCell;
use std::fmt;
use std::iter;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use super::span::Span;

/// Draws without colour, about 108 terminal cells wide.
const RENDERER: Renderer = Renderer::plain().term_width(108);
/// The maximum number of marked bytes. Without tabs they take no more cells than bytes, so that the
/// renderer can show all of them.
const MARKED: usize = 90;
/// The number of bytes before and after the marked part. They take more cells than the renderer
/// has, so that it shortens the line exactly if the text goes on.
const AROUND: usize = 400;

/// A text and where its lines start.
pub(super) struct Lines<'t> {
    pub(super) text: &'t str,
    /// Byte offsets in ascending order. A valid file may never need them.
    starts: OnceCell<Vec<usize>>,
}

impl<'t> Lines<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Lines { text, starts: OnceCell::new() }
    }

    /// The number of the line that contains byte `at`, counted from 1.
    pub(super) fn number(&self, at: usize) -> usize {
        self.starts().partition_point(|start| *start <= at)
    }

    /// The line with this number, without its end.
    fn range(&self, number: usize) -> Range<usize> {
        let start = self.starts()[number - 1];
        let next = self.starts().get(number).map_or(self.text.len(), |next| next - 1);
        start..start + self.text[start..next].trim_end_matches('\r').len()
    }

    fn starts(&self) -> &[usize] {
        self.starts.get_or_init(|| {
            let feeds = memchr::memchr_iter(b'\n', self.text.as_bytes());
            iter::once(0).chain(feeds.map(|feed| feed + 1)).collect()
        })
    }
}

/// One line of the text and the part of it to be marked.
pub(super) struct Excerpt {
    /// Counted from 1.
    pub(super) line: usize,
    /// Characters, counted from 1.
    pub(super) column: usize,
    shown: String,
    /// In bytes of `shown`.
    marked: Range<usize>,
}

impl Excerpt {
    /// Creates the excerpt of a span. Of a span over several lines, only the first line is shown.
    /// An empty span gets one caret. Offsets after the end of the text are treated as its end.
    pub(super) fn new(lines: &Lines<'_>, span: Span) -> Self {
        let text = lines.text;
        let start = char_boundary_before(text, span.start);
        let number = lines.number(start);
        let line = lines.range(number);
        // The end of a DOS line is no part of it.
        let start = start.min(line.end);
        let limit = span.end.min(start + MARKED);
        let end = char_boundary_before(text, limit).clamp(start, line.end);

        let first = char_boundary_before(text, start.saturating_sub(AROUND)).max(line.start);
        let last = char_boundary_before(text, end + AROUND).min(line.end);
        let mut shown = harmless(&text[first..start]);
        let before = shown.len();
        shown.push_str(&harmless(&text[start..end]));
        let marked = before..shown.len();
        if limit < span.end && end < line.end {
            shown.push_str("...");
        } else {
            shown.push_str(harmless(&text[end..last]).trim_end());
        }
        let column = text[line.start..start].chars().count() + 1;
        Excerpt { line: number, column, shown, marked }
    }

    /// The number of digits of the line number.
    pub(super) fn gutter(&self) -> usize {
        self.line.to_string().len()
    }
}

impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let snippet = Snippet::source(&self.shown)
            .line_start(self.line)
            .annotation(AnnotationKind::Primary.span(self.marked.clone()));
        f.write_str(&RENDERER.render(&[Group::with_level(Level::ERROR).element(snippet)]))
    }
}

/// Replaces control characters, and characters that change the writing direction or are invisible.
fn harmless(text: &str) -> String {
    let replaced = |character| match character {
        '\t' => '\t',
        // The renderer leaves out the joiner U+200D.
        '\u{200b}' | '\u{200c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' => '\u{fffd}',
        '\u{61c}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{ad}' | '\u{180e}' => '\u{fffd}',
        '\u{e0000}'..='\u{e0fff}' => '\u{fffd}',
        control if control.is_control() => '\u{fffd}',
        plain => plain,
    };
    text.chars().map(replaced).collect()
}

/// The nearest character boundary at or before `at`.
fn char_boundary_before(text: &str, at: usize) -> usize {
    let at = at.min(text.len());
    (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

#[cfg(test)]
mod tests;
